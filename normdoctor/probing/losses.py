"""The losses that a watch is told, kept on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normdoctor.probing.series import Series


class Losses:
    """Counts losses that are not finite, and keeps some of all for the history; nothing waits."""

    def __init__(self) -> None:
        self.steps = 0
        self._bad: Tensor | None = None
        self._series: Series | None = None

    def add(self, loss: Tensor | float, step: int) -> None:
        """Note the loss of one step."""
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        bad = (~torch.isfinite(value)).any().to(torch.int64)
        if self._bad is None:
            self._bad = bad
            self._series = Series(1, 1, value.device)
        else:
            self._bad = self._bad + bad.to(self._bad.device, non_blocking=True)
        if self._series is not None and value.numel():
            point = value.float().mean() if value.dim() else value.float()
            self._series.add(step, point.to(self._series.kept.device, non_blocking=True))
        self.steps += 1

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""
        return [] if self._bad is None else [self._bad]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """How many steps, and in how many of them the loss was not finite."""
        return {"loss": {"steps": self.steps, "not_finite": int(values[0])}}

    def points(self) -> list[tuple[int, float]]:
        """Losses over the whole run, thinned. Waits for the device."""
        if self._series is None:
            return []
        steps, tables = self._series.whole(self._series.kept.cpu())
        return list(zip(steps, tables.flatten().tolist(), strict=True))
