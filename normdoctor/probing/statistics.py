"""What is accumulated while a model runs: sums on its own device, read once at the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class UnitActivity:
    """How often each unit (channel or feature) of one activation was above zero.

    Counting starts no transfer to the host: the sums are int64 tensors beside the activation, and all
    that is kept in Python follows from shapes. `budget` bounds how many values a batch contributes.
    """

    def __init__(self, kind: str, budget: int | None = None) -> None:
        self.kind = kind
        self.budget = budget
        self.observations = 0
        self.batches = 0
        self._active: Tensor | None = None
        self._uniform = True

    def add(self, output: Tensor, axis: int) -> None:
        """Count one output, whose units lie along `axis`."""
        output = self._thinned(output.detach(), axis)
        units = output.shape[axis]
        if self._active is None:
            self._active = torch.zeros(units, dtype=torch.int64, device=output.device)
        elif self._active.numel() != units:
            self._uniform = False
        if not self._uniform or output.numel() == 0:
            return
        others = [dim for dim in range(output.dim()) if dim != axis]
        above = output > 0
        counted = above.sum(others) if others else above.to(torch.int64)
        self._active += counted.to(self._active.device)
        self.observations += output.numel() // units
        self.batches += 1

    def read(self) -> dict[str, Any] | None:
        """The figures as plain data; None where the units were not the same in every batch."""
        if self._active is None or not self._uniform:
            return None
        dead = (self._active == 0).nonzero().flatten().tolist()
        return {
            "kind": self.kind,
            "units": self._active.numel(),
            "dead": len(dead),
            "dead_units": dead,
            "observations": self.observations,
            "batches": self.batches,
        }

    def _thinned(self, output: Tensor, axis: int) -> Tensor:
        if self.budget is None or output.numel() <= self.budget or axis == 0:
            return output
        samples = max(1, self.budget * output.shape[0] // output.numel())
        return output[:samples]
