"""Gradients and weights of the parameters on one device, in buffers that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normdoctor.probing.gradientfigures import Parameter
from normdoctor.probing.samples import aligned, dense, fill, local, strided, width_for
from normdoctor.probing.series import Series

#: What is noted of a parameter at a look. `norm` is that of its gradient over all entries, -1 where there is
#: none; the others are of a sample: `active` any gradient that is not zero, `update` and `weight` norms,
#: `changed` any weight that the step moved, `zeros` the share of gradients that are zero and `grid` the
#: share of the others below the normal numbers of fp16 that are multiples of its least one.
ROWS = ("norm", "active", "weight", "update", "changed", "zeros", "grid")
NORM, ACTIVE, WEIGHT, UPDATE, CHANGED, ZEROS, GRID = range(len(ROWS))

#: The least normal and the least positive number of fp16.
_NORMAL, _LEAST = 2.0**-14, 2.0**-24


class Bank:
    """The parameters on one device, with buffers that are made once."""

    def __init__(self, device: torch.device, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        self.members = [
            index
            for index, one in enumerate(parameters)
            if not one.tensor.is_meta and local(one.tensor).device == device
        ]
        count = len(self.members)
        self.width = width_for(count)
        self.device = device
        self.before = torch.zeros(count, self.width, device=device)
        self.after = torch.zeros(count, self.width, device=device)
        self.table = torch.full((len(ROWS), count), torch.nan, device=device)
        self.absent = torch.full((), -1.0, device=device)
        #: Looks with a gradient, with one that is zero throughout, with one that is not finite, with a
        #: gradient in the sample and no change of it, and with a gradient in the sample.
        self.counts = torch.zeros(5, count, device=device)
        self.series = Series(len(ROWS), count, device)
        self.lengths = [min(self.width, len(strided(self._of(c), self.width))) for c in range(count)]
        self._sizes = torch.tensor(self.lengths, dtype=torch.float32).to(device)
        self._rows = tuple(
            [row[:length] for row, length in zip(rows, self.lengths, strict=True)]
            for rows in (self.before, self.after)
        )
        self._masks: dict[bytes, Tensor] = {}
        self._drifted: Tensor | None = None
        self._fresh()

    def note_weights(self, columns: Sequence[int], *, again: bool = False) -> None:
        """Sample the weights before the step; with `again`, have they moved since the last look?"""
        rows, earlier = self._rows[0], self.before.clone() if again else self.before
        fill([rows[c] for c in columns], [strided(self._of(c), self.width) for c in columns])
        self._drifted = (self.before != earlier).any(1) if again else None

    def note_gradients(self, columns: Sequence[int], optimizer: Any, *, half: bool) -> None:
        """Norms of all entries, and what a sample says."""
        found = [(column, gradient) for column in columns if (gradient := self._gradient(column)) is not None]
        mask = self._mask([column for column, _ in found])
        norms = torch.full_like(self.table[NORM], -1.0)
        if found:
            norms = self._scattered([column for column, _ in found], norms_of([g for _, g in found]))
        rows = self._rows[1]
        self.after.zero_()
        plain = [(column, g) for column, g in found if g.layout == torch.strided]
        samples = [strided(aligned(local(g), self._of(column)), self.width) for column, g in plain]
        fill([rows[column] for column, _ in plain], samples)
        if (scale := getattr(optimizer, "grad_scale", None)) is not None:  # a fused optimizer unscales itself
            norms = norms / scale.to(norms.device)
            self.after.div_(scale.to(self.device))
        if (overflow := getattr(optimizer, "found_inf", None)) is not None:
            norms = torch.where(overflow.to(norms.device) > 0, self.absent, norms)
        self._note(NORM, mask, norms)
        self._note(ACTIVE, mask, (self.after != 0).any(1).float())
        if half or any(g.dtype == torch.float16 for _, g in found):
            self._note_grid(mask)

    def note_updates(self, columns: Sequence[int]) -> None:
        """Sample the weights after the step and compare."""
        rows = self._rows[1]
        fill([rows[c] for c in columns], [strided(self._of(c), self.width) for c in columns])
        mask = self._mask(columns)
        lengths = self.before.norm(dim=1)
        moved = self.after.sub_(self.before)
        self._note(WEIGHT, mask, lengths)
        self._note(UPDATE, mask, moved.norm(dim=1))
        changed = (moved != 0).any(1)
        self._note(CHANGED, mask, (changed if self._drifted is None else changed | self._drifted).float())

    def commit(self, step: int) -> None:
        """Close a look."""
        with torch.no_grad():
            norm, active, changed = self.table[NORM], self.table[ACTIVE] > 0, self.table[CHANGED] > 0
            seen = ~(norm < 0) & ~torch.isnan(self.table[ACTIVE])
            still = seen & active & ~changed & ~torch.isnan(self.table[CHANGED])
            zero = seen & (norm == 0) & ~active
            self.counts += torch.stack([seen, zero, seen & ~torch.isfinite(norm), still, seen & active])
            self.series.add(step, self.table)
            self._fresh()

    def forget(self) -> None:
        """Start over."""
        self.counts.zero_()
        self.series.clear()
        self._fresh()

    def _fresh(self) -> None:
        self.table.fill_(torch.nan)
        self.table[NORM].fill_(-1.0)

    def _note_grid(self, mask: Tensor) -> None:
        zeros = (self.after == 0).sum(1) - (self.width - self._sizes)
        nonzero = (self._sizes - zeros).clamp(min=1)
        units = self.after / _LEAST
        grid = (self.after != 0) & (self.after.abs() < _NORMAL) & (units == units.round())
        self._note(ZEROS, mask, zeros / self._sizes.clamp(min=1))
        self._note(GRID, mask, grid.sum(1) / nonzero)

    def _note(self, row: int, mask: Tensor, values: Tensor) -> None:
        self.table[row].copy_(torch.where(mask, values, self.table[row]))

    def _mask(self, columns: Sequence[int]) -> Tensor:
        """Which columns are meant, on the device; there are few such sets in a training."""
        flags = bytearray(len(self.members))
        for column in columns:
            flags[column] = 1
        key = bytes(flags)
        if key not in self._masks:
            if len(self._masks) >= 16:
                self._masks.clear()
            on_host = torch.tensor(list(flags), dtype=torch.bool)
            if self.device.type == "cuda":
                on_host = on_host.pin_memory()
            self._masks[key] = on_host.to(self.device, non_blocking=True)
        return self._masks[key]

    def _scattered(self, columns: Sequence[int], values: Sequence[Tensor]) -> Tensor:
        by_column = dict(zip(columns, values, strict=True))
        return torch.stack([by_column.get(c, self.absent) for c in range(len(self.members))])

    def _of(self, column: int) -> Tensor:
        return local(self.parameters[self.members[column]].tensor)

    def _gradient(self, column: int) -> Tensor | None:
        return self.parameters[self.members[column]].tensor.grad


def norms_of(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The L2 norm of each gradient in float32; a sparse gradient counts with its stored entries.

    It is zero only where no entry is above 1e-23, and NaN or infinite where an entry is.
    """
    plain = [local(one._values() if one.is_sparse else one) for one in gradients]
    quick = [
        i for i, one in enumerate(plain) if one.dtype == torch.float32 and not one.is_cuda and dense(one)
    ]
    # On a CPU a dot product takes half the time of a norm.
    found: dict[int, Tensor] = {}
    if quick:
        flat = [plain[i].as_strided((plain[i].numel(),), (1,)) for i in quick]
        found |= zip(quick, torch.stack([torch.dot(one, one) for one in flat]).sqrt_().unbind(), strict=True)
    for narrow in (False, True):
        places = [i for i, one in enumerate(plain) if i not in found and (one.dtype in _NARROW) == narrow]
        if places:
            chosen = [plain[i] for i in places]
            norms = (
                torch._foreach_norm(chosen, 2, torch.float32) if narrow else torch._foreach_norm(chosen, 2)
            )
            found |= {i: norm.float() for i, norm in zip(places, norms, strict=True)}
    return [found[i] for i in range(len(plain))]


_NARROW = frozenset({torch.float16, torch.bfloat16})
