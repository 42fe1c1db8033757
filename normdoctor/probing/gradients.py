"""Gradients and updates of every parameter, read around the optimizer's own step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from normdoctor.probing.gradientfigures import Parameter, gradient_figures, update_figures
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


class GradientCollector:
    """Reads gradients and weights at each look, without a transfer to the host.

    The optimizer says by hooks when its step begins and ends: gradients are read there as it gets them,
    after accumulation, unscaling (`torch.amp.GradScaler`) and clipping, and before any `zero_grad`. A step
    that a scaler skips is no look. Training without a `torch.optim.Optimizer` is seen by hooks on the
    accumulation of gradients, which also tell the order of the layers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.half = False
        self.stepped = False
        self.order: dict[int, None] = {}
        self.parameters: list[Parameter] = []
        self.banks: list[Bank] = []
        self._places: dict[int, tuple[Bank, int, int]] = {}
        self._handles: list[RemovableHandle] = []
        self._loose: dict[int, Tensor] = {}
        self._closing = False
        self._now = False

    def attach(self) -> None:
        """Begin a look."""
        self._take_inventory()
        self._now = False
        self._loose.clear()
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        if not self.stepped or not self.order:
            self._handles += [
                one.tensor.register_post_accumulate_grad_hook(_Accumulated(self, place))  # type: ignore[no-untyped-call]
                for place, one in enumerate(self.parameters)
                if one.tensor.requires_grad and one.tensor.is_leaf
            ]
        if not self.stepped:
            for bank in self.banks:
                bank.note_weights(range(len(bank.members)))

    def detach(self, step: int) -> bool:
        """End a look; false where nothing was seen."""
        while self._handles:
            self._handles.pop().remove()
        if not self._now and self._loose and not self.stepped:
            self._commit_loose()
        self._loose.clear()
        seen, self._now = self._now, False
        if seen:
            for bank in self.banks:
                bank.commit(step)
            for one in self.parameters:
                one.looks += 1
        return seen

    def abandon(self) -> None:
        """End a look without counting it."""
        while self._handles:
            self._handles.pop().remove()
        self._loose.clear()
        self._now = False

    def bad(self) -> Tensor | None:
        """How often a gradient was not finite, on the device of the first parameter."""
        return self.banks[0].counts[2].sum() if self.banks else None

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""
        return [part for bank in self.banks for part in (bank.series.recent, bank.counts)]

    def history(self) -> list[Tensor]:
        """What the history over the whole run is made of."""
        return [bank.series.kept for bank in self.banks]

    def read(self, values: Sequence[Tensor]) -> dict[str, dict[str, Any]]:
        """The figures of the needs "gradients" and "updates", by parameter name."""
        if not any(bank.series.looks for bank in self.banks):
            return {}
        places = self.places()
        for index, one in enumerate(self.parameters):
            one.place = places.get(index)
        found: dict[str, dict[str, Any]] = {"gradients": {}, "updates": {}}
        for bank, recent, counts in zip(self.banks, values[::2], values[1::2], strict=True):
            steps, tables = bank.series.last(recent)
            for column, member in enumerate(bank.members):
                one = self.parameters[member]
                found["gradients"][one.name] = gradient_figures(
                    one, steps, tables[:, :, column], counts[:, column], stepped=self.stepped
                )
                found["updates"][one.name] = update_figures(one, tables[:, :, column], counts[:, column])
        names = [one.name for one in self.parameters]
        return {need: {name: of[name] for name in names if name in of} for need, of in found.items()}

    def series(self, values: Sequence[Tensor]) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """Gradient norm and update ratio of each parameter over the whole run, thinned."""
        found: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for bank, kept in zip(self.banks, values, strict=True):
            steps, tables = bank.series.whole(kept)
            for column, member in enumerate(bank.members):
                norms, weights, updates = (tables[:, row, column] for row in (NORM, WEIGHT, UPDATE))
                found[self.parameters[member].name] = {
                    "gradient_norm": [(s, n) for s, n in zip(steps, norms.tolist(), strict=True) if n != -1],
                    "update_ratio": [
                        (s, ratio)
                        for s, ratio in zip(steps, (updates / weights).tolist(), strict=True)
                        if math.isfinite(ratio)
                    ],
                }
        return {one.name: found[one.name] for one in self.parameters if one.name in found}

    def places(self) -> dict[int, int]:
        """The place of each parameter, counted from the input, as far as a backward told."""
        return {one: rank for rank, one in enumerate(reversed(self.order))}

    def accumulated(self, place: int) -> None:
        """A gradient is complete: called in the order of the backward."""
        self.order.pop(place, None)
        self.order[place] = None
        gradient = self.parameters[place].tensor.grad
        if not self.stepped and gradient is not None:
            self._loose[place] = norms_of([gradient])[0]

    def _take_inventory(self) -> None:
        named = list(self.model.named_parameters())
        known = [(one.name, one.tensor.shape) for one in self.parameters]
        if known == [(name, tensor.shape) for name, tensor in named]:
            for one, (_, tensor) in zip(self.parameters, named, strict=True):
                one.tensor = tensor  # as a rule the same; swapped by sharding or `torch.func`
        else:
            self.parameters = [Parameter.of(self.model, name, tensor) for name, tensor in named]
            self.order.clear()
            devices = {local(one.tensor).device: None for one in self.parameters if not one.tensor.is_meta}
            self.banks = [Bank(device, self.parameters) for device in devices]
        self._places = {
            id(self.parameters[member].tensor): (bank, column, member)
            for bank in self.banks
            for column, member in enumerate(bank.members)
        }

    def _picked(self, optimizer: torch.optim.Optimizer) -> dict[Bank, list[int]]:
        """The columns of what an optimizer trains, by bank."""
        picked: dict[Bank, list[int]] = {}
        for group in optimizer.param_groups:
            rate = group.get("lr")
            for tensor in group["params"]:
                if (known := self._places.get(id(tensor))) is not None:
                    bank, column, member = known
                    picked.setdefault(bank, []).append(column)
                    self.parameters[member].optimized = True
                    self.parameters[member].rate = rate if isinstance(rate, int | float) else None
        return picked

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        picked = self._picked(optimizer)
        if not picked:
            return
        if not self.stepped:
            self.stepped = True
            for bank in self.banks:
                bank.forget()
            for one in self.parameters:
                one.looks = 0
        # A closure computes the gradients inside of the step.
        given = [*args[1:], *(kwargs or {}).values()]
        self._closing = any(callable(one) for one in given)
        with torch.no_grad():
            for bank, columns in picked.items():
                bank.note_weights(columns)
                if not self._closing:
                    bank.note_gradients(columns, optimizer, half=self.half)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        picked = self._picked(optimizer)
        with torch.no_grad():
            for bank, columns in picked.items():
                if self._closing:
                    bank.note_gradients(columns, optimizer, half=self.half)
                bank.note_updates(columns)
        self._now = self._now or bool(picked)

    def _commit_loose(self) -> None:
        with torch.no_grad():
            for bank in self.banks:
                present = [self._loose.get(member) for member in bank.members]
                bank.table[NORM] = torch.stack([bank.absent if one is None else one for one in present])
                bank.table[ACTIVE] = (bank.table[NORM] > 0).float()
                bank.note_updates(range(len(bank.members)))
        self._now = True


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
        self._fresh()

    def note_weights(self, columns: Sequence[int]) -> None:
        """Sample the weights before the step."""
        rows = self._rows[0]
        fill([rows[c] for c in columns], [strided(self._of(c), self.width) for c in columns])

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
        self._note(CHANGED, mask, (moved != 0).any(1).float())

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


class _Accumulated:
    """A hook on a parameter."""

    def __init__(self, collector: GradientCollector, place: int) -> None:
        self.collector = collector
        self.place = place

    def __call__(self, _: Tensor) -> None:
        with torch.no_grad():
            self.collector.accumulated(self.place)
