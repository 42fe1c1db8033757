"""Figures look after look, on the device, in memory that does not grow: the last looks, and the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: How many of the last looks are kept, and how many are kept of the whole run, spread evenly over it.
RECENT = 16
KEPT = 64


class Series:
    """A table of shape (rows, columns) for each look.

    Of the whole run at most `KEPT` looks are kept: when they are full every other one is dropped, and
    from then on half as many are taken, so that those kept are always evenly spread.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.recent = torch.full((RECENT, rows, columns), torch.nan, device=device)
        self.kept = torch.full((KEPT, rows, columns), torch.nan, device=device)
        self.looks = 0
        self._recent_steps: list[int] = []
        self._steps: list[int] = []
        self._stride = 1

    def add(self, step: int, table: Tensor) -> None:
        """Append the figures of one look."""
        self.recent[self.looks % RECENT].copy_(table)
        self._recent_steps = [*self._recent_steps, step][-RECENT:]
        if self.looks % self._stride == 0:
            if len(self._steps) == KEPT:
                self.kept[: KEPT // 2].copy_(self.kept[::2].clone())
                self._steps = self._steps[::2]
                self._stride *= 2
            if self.looks % self._stride == 0:
                self.kept[len(self._steps)].copy_(table)
                self._steps.append(step)
        self.looks += 1

    @property
    def latest(self) -> int | None:
        """The step of the last look."""
        return self._recent_steps[-1] if self._recent_steps else None

    @property
    def newest(self) -> Tensor:
        """The table of the last look."""
        return self.recent[(self.looks - 1) % RECENT]

    def clear(self) -> None:
        """Forget all looks."""
        self.looks = 0
        self._recent_steps, self._steps, self._stride = [], [], 1

    def last(self, values: Tensor) -> tuple[list[int], Tensor]:
        """Steps and tables of the last looks in order, from what `recent` holds on the host."""
        count = len(self._recent_steps)
        order = [(self.looks - count + place) % RECENT for place in range(count)]
        return list(self._recent_steps), values[order]

    def whole(self, values: Tensor) -> tuple[list[int], Tensor]:
        """Steps and tables over the whole run, from what `kept` holds on the host."""
        return list(self._steps), values[: len(self._steps)]


class Thinned:
    """One number after another on the host, thinned as a `Series` is."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._stride = 1
        self._seen = 0

    def add(self, step: int, value: float) -> None:
        """Append one."""
        if self._seen % self._stride == 0:
            if len(self.points) == KEPT:
                self.points = self.points[::2]
                self._stride *= 2
            if self._seen % self._stride == 0:
                self.points.append((step, value))
        self._seen += 1


class History:
    """Every number of measurements over the run, by need, site and statistic, thinned."""

    #: Needs that keep a history of their own, on the device, and what is no measurement.
    _ELSEWHERE = frozenset({"gradients", "updates", "losses", "run"})

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, dict[str, Thinned]]] = {}

    def note(self, measurements: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Take in the measurements of one step; once a step."""
        for need in measurements.keys() - self._ELSEWHERE:
            for site, figures in measurements[need].items():
                lines = self._lines.setdefault(need, {}).setdefault(site, {})
                for name, value in figures.items():
                    if type(value) in (int, float) and name not in ("call", "order"):
                        line = lines.setdefault(name, Thinned())
                        if not line.points or line.points[-1][0] != step:
                            line.add(step, float(value))

    def points(self) -> dict[str, dict[str, dict[str, list[tuple[int, float]]]]]:
        """Points (step, value)."""
        return {
            need: {site: {name: list(line.points) for name, line in of.items()} for site, of in sites.items()}
            for need, sites in self._lines.items()
        }
