"""The losses that a watch is told, kept on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normdoctor.probing.series import Series


class Losses:
    """Counts losses that are not finite, and keeps some of all for the history; nothing waits.

    `_clean` counts the finite losses before the first other one.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._bad: Tensor | None = None
        self._clean = torch.zeros((), dtype=torch.int64)
        self._each = True
        self._series: Series | None = None

    def add(self, loss: Tensor | float, step: int) -> None:
        """Note the loss of one step."""
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        bad = (~torch.isfinite(value)).any().to(torch.int64)
        if self._bad is None:
            self._bad = bad
            self._clean = 1 - bad
            self._series = Series(1, 1, value.device)
        else:
            self._bad = self._bad + bad.to(self._bad.device, non_blocking=True)
            self._clean = self._clean + self._bad.eq(0)
        self._each = self._each and step == self.steps
        if self._series is not None and value.numel():
            point = value.float().mean() if value.dim() else value.float()
            self._series.add(step, point.to(self._series.kept.device, non_blocking=True))
        self.steps += 1

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""
        return [] if self._bad is None else [self._bad, self._clean]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """How many steps, in how many of them the loss was not finite, and in which first (from 1)."""
        bad, clean = (int(value) for value in values)
        first = clean + 1 if bad and self._each else None
        return {"loss": {"steps": self.steps, "not_finite": bad, "first": first}}

    def points(self) -> list[tuple[int, float]]:
        """Losses over the whole run, thinned. Waits for the device."""
        if self._series is None:
            return []
        steps, tables = self._series.whole(self._series.kept.cpu())
        return list(zip(steps, tables.flatten().tolist(), strict=True))
