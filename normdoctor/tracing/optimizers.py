"""Optimizers as facts: which parameters of the model each group trains, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from normdoctor.errors import UsageError, brief, kind_of
from normdoctor.facts import Location, OptimizerFact, OptimizerGroup
from normdoctor.loading.state import Inventory

_PLAIN = bool | int | float | str | None


def optimizer_facts(
    optimizers: Iterable[torch.optim.Optimizer],
    parts: Inventory,
    where: Callable[[torch.optim.Optimizer], Location | None] = lambda _: None,
) -> tuple[OptimizerFact, ...]:
    """One fact for each optimizer; its tensors are named by identity, those of others counted."""
    names = {id(entry.tensor): entry.name for entry in parts.tensors.values()}
    return tuple(
        OptimizerFact(
            type=type(optimizer).__name__,
            groups=tuple(_group(group, names) for group in optimizer.param_groups),
            location=where(optimizer),
        )
        for optimizer in optimizers
    )


def _group(group: dict[str, Any], names: dict[int, str]) -> OptimizerGroup:
    known = [names.get(id(tensor)) for tensor in group["params"]]
    options = {key: _plain(value) for key, value in group.items() if key != "params" and _is_plain(value)}
    return OptimizerGroup(
        parameters=tuple(name for name in known if name is not None),
        foreign=known.count(None),
        options=options,
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and value.device.type != "meta"
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def made_optimizer(factory: object, model: torch.nn.Module, name: str) -> torch.optim.Optimizer:
    """The optimizer that is named: an object, or what a factory makes of the model or its parameters."""
    if isinstance(factory, torch.optim.Optimizer):
        return factory
    if not callable(factory):
        raise UsageError(f"{name} is {kind_of(factory)}: expected an optimizer, or a function that makes one")
    first: BaseException | None = None
    for given in (model, model.parameters()):
        try:
            made = factory(given)
        except (Exception, SystemExit) as error:  # the user's code: any error of its own
            first = first or error
            continue
        if isinstance(made, torch.optim.Optimizer):
            return made
        raise UsageError(f"{name} gave {kind_of(made)}: expected a torch.optim.Optimizer")
    assert first is not None
    raise UsageError(
        f"{name} made no optimizer, neither of the model nor of its parameters: {brief(first)}",
        hint="For example: def optimizer(model): return torch.optim.AdamW(model.parameters()).",
    ) from first
