"""Gradients and updates of every parameter, read around the optimizer's own step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from normdoctor.probing.gradientbank import ACTIVE, NORM, UPDATE, WEIGHT, Bank, norms_of
from normdoctor.probing.gradientfigures import Parameter, gradient_figures, update_figures
from normdoctor.probing.samples import local


class GradientCollector:
    """Reads gradients and weights at each look, without a transfer to the host.

    The optimizer says by hooks when its step begins and ends: gradients are read there as it gets them,
    after accumulation, unscaling (`torch.amp.GradScaler`) and clipping, and before any `zero_grad`. A step
    that a scaler skips is no look. Where gradients are accumulated over several steps of the loop, a look
    lasts until the optimizer's step. Training without a `torch.optim.Optimizer` is seen by hooks on the
    accumulation of gradients, which also tell the order of the layers.

    `stepped`: an optimizer made a step with the model in a look; `trained`: it made one at any time; `waits`:
    a look is over but for the optimizer's step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.half = False
        self.stepped = self.trained = self.waits = False
        self.order: dict[int, None] = {}
        self.parameters: list[Parameter] = []
        self.banks: list[Bank] = []
        self._places: dict[int, tuple[Bank, int, int]] = {}
        self._handles: list[RemovableHandle] = []
        self._standing: RemovableHandle | None = None
        self._loose: dict[int, Tensor] = {}
        self._closing = False
        self._now = False

    def open(self) -> None:
        """Be told of the optimizer's first step with the model, also between looks."""
        self._standing = register_optimizer_step_pre_hook(self._note_step)

    def close(self) -> None:
        """Take all hooks off."""
        self.abandon()
        self._rest()

    def attach(self) -> None:
        """Begin a look."""
        self.abandon()
        self._take_inventory()
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
                bank.note_weights(range(len(bank.members)), again=bank.series.looks > 0)

    def detach(self, step: int) -> bool:
        """End a look; false where nothing was seen, or not yet."""
        self.waits = self.trained and not self._now
        if self.trained:
            self._rest()
        if self.waits:
            return False
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
        self._now = self.waits = False

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
        if not self.trained and gradient is not None:
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

    def _note_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.trained = self.trained or any(
            id(tensor) in self._places for group in optimizer.param_groups for tensor in group["params"]
        )

    def _rest(self) -> None:
        if self._standing is not None:
            self._standing.remove()
            self._standing = None

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        picked = self._picked(optimizer)
        if not picked:
            return
        if not self.stepped:
            self.stepped = self.trained = True
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


class _Accumulated:
    """A hook on a parameter."""

    def __init__(self, collector: GradientCollector, place: int) -> None:
        self.collector = collector
        self.place = place

    def __call__(self, _: Tensor) -> None:
        with torch.no_grad():
            self.collector.accumulated(self.place)
