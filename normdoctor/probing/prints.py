"""Are two batches of one step the same? Compared on the device, by some of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normdoctor.probing.samples import strided

#: How many values of a batch are compared, and how many batches of a step.
VALUES = 256
BATCHES = 8


class Prints:
    """Counts observed steps in which a batch came a second time, as a copy."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []
        self._equal: Tensor | None = None
        self._count: Tensor | None = None
        self._steps = 0

    def add(self, batch: Tensor) -> None:
        """Compare a batch with those that came before it in this step."""
        if batch.is_meta or batch.layout != torch.strided or batch.numel() < 2 or len(self._seen) >= BATCHES:
            return
        with torch.no_grad():
            values = strided(batch.detach(), VALUES).clone()
            alike = [one for one in self._seen if one.shape == values.shape and one.device == values.device]
            for one in alike:
                # A batch of one value throughout (zeros, padding) says nothing.
                equal = (one == values).all() & (values != values[0]).any()
                self._equal = equal if self._equal is None else self._equal | equal
            self._seen.append(values)

    def clear(self) -> None:
        """The step is over."""
        if self._seen:
            self._steps += 1
            self._seen.clear()
        if self._equal is not None:
            equal = self._equal.to(torch.int64)
            self._count = equal if self._count is None else self._count + equal.to(self._count.device)
            self._equal = None

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""
        return [] if self._count is None else [self._count]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """Observed steps, and those among them in which a batch was repeated as a copy."""
        return {"compared": self._steps, "copies": int(values[0]) if values else 0}
