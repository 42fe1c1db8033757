"""Sums over the units of many sites, in one buffer on the model's device.

A site hands in the statistics of one batch, one column a unit; at the end of the forward all columns are
merged into the totals by a few calls, however many sites there are. Nothing is read by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

#: What is kept of a unit, one row each. `n` counts its finite observations, `mean` and `m2` are the mean
#: and the sum of squared deviations from it, `active` counts values above zero, `low` and `high` those at
#: or beyond the bounds of the activation, `level` sums how far values lie from the middle of its range (0)
#: towards its ends (1), `bad` counts the batches that held NaN or infinity (left out of the rest).
ROWS = ("n", "mean", "m2", "minimum", "maximum", "active", "low", "high", "level", "bad")


class Slot(NamedTuple):
    """The columns of one site."""

    start: int
    units: int


def merge(total: Tensor, batch: Tensor) -> None:
    """Make of `total` the statistics of two disjoint sets of observations; both of shape (10, units).

    Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    n_a, mean_a, m2_a, min_a, max_a = total[:5]
    n_b, mean_b, m2_b, min_b, max_b = batch[:5]
    share = n_b / (n_a + n_b).clamp_(min=1)
    delta = mean_b - mean_a
    mean_a.addcmul_(delta, share)
    m2_a.add_(m2_b).addcmul_(delta.square_().mul_(n_a), share)
    n_a.add_(n_b)
    torch.minimum(min_a, min_b, out=min_a)
    torch.maximum(max_a, max_b, out=max_a)
    total[5:].add_(batch[5:])


def empty(units: int, like: Tensor) -> Tensor:
    """Statistics of no observation."""
    rows = torch.zeros(len(ROWS), units, dtype=like.dtype, device=like.device)
    rows[3] = torch.inf
    rows[4] = -torch.inf
    return rows


class Packed(NamedTuple):
    """A ledger as plain data, for another process."""

    slots: dict[Hashable, Slot]
    batches: dict[Hashable, int]
    uneven: frozenset[Hashable]
    total: Tensor | None


class Ledger:
    """The totals of all sites on one device.

    `merge` adds to totals of shape (rows, units) those of a batch, `blank` makes a total of no observation.
    """

    def __init__(
        self,
        merge: Callable[[Tensor, Tensor], None] = merge,
        blank: Callable[[int, Tensor], Tensor] = empty,
    ) -> None:
        self._join = merge
        self._blank = blank
        self.slots: dict[Hashable, Slot] = {}
        self.batches: dict[Hashable, int] = {}
        self.uneven: set[Hashable] = set()
        self.total: Tensor | None = None
        self._pending: list[tuple[Hashable, Tensor]] = []
        self._width = 0

    def add(self, key: Hashable, rows: Tensor) -> None:
        """Note the statistics of one batch, of shape (10, units). A site whose units change is left out."""
        units = rows.shape[1]
        slot = self.slots.get(key)
        if slot is None:
            self.slots[key] = Slot(self._width, units)
            self._width += units
        elif slot.units != units:
            self.uneven.add(key)
            return
        self.batches[key] = self.batches.get(key, 0) + 1
        self._pending.append((key, rows))

    def flush(self) -> None:
        """Merge what is pending into the totals."""
        while self._pending:
            # A site that came twice (a reused layer under one key) is merged in rounds.
            now: dict[Hashable, Tensor] = {}
            later: list[tuple[Hashable, Tensor]] = []
            for key, rows in self._pending:
                if key in now:
                    later.append((key, rows))
                else:
                    now[key] = rows
            self._pending = later
            self._merge(now)

    def packed(self) -> Packed:
        """All that it holds, with the totals on the host."""
        total = None if self.total is None else self.total.detach().cpu()
        return Packed(dict(self.slots), dict(self.batches), frozenset(self.uneven), total)

    def join(self, other: Packed) -> None:
        """Add what another ledger of the same kind holds: exactly as if its batches had come here."""
        self.uneven |= other.uneven
        if other.total is None:
            return
        for key, (start, units) in other.slots.items():
            if count := other.batches.get(key, 0):
                self.add(key, other.total[:, start : start + units])
                if key not in self.uneven:
                    self.batches[key] += count - 1
        self.flush()

    def discard(self) -> None:
        """Forget what is pending: the forward did not end."""
        for key, _ in self._pending:
            self.batches[key] -= 1
        self._pending.clear()

    def _merge(self, batch: dict[Hashable, Tensor]) -> None:
        total = self._grown(next(iter(batch.values())))
        keys = sorted(batch, key=lambda key: self.slots[key].start)
        rows = torch.cat([batch[key] for key in keys], dim=1)
        if rows.shape[1] == self._width:
            self._join(total, rows)
            return
        for start, stop, columns in _runs([self.slots[key] for key in keys]):
            self._join(total[:, start:stop], rows[:, columns : columns + stop - start])

    def _grown(self, like: Tensor) -> Tensor:
        if self.total is None:
            self.total = self._blank(self._width, like)
        elif self.total.shape[1] < self._width:
            self.total = torch.cat((self.total, self._blank(self._width - self.total.shape[1], like)), dim=1)
        return self.total


def _runs(slots: list[Slot]) -> list[tuple[int, int, int]]:
    """(start, stop, first column) of each run of slots that lie side by side."""
    runs: list[tuple[int, int, int]] = []
    columns = 0
    for slot in slots:
        if runs and runs[-1][1] == slot.start:
            runs[-1] = (runs[-1][0], slot.start + slot.units, runs[-1][2])
        else:
            runs.append((slot.start, slot.start + slot.units, columns))
        columns += slot.units
    return runs
