"""The parameters that an optimizer owns, kept in step with those of a model that is converted."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.rewriting.journal import Journal


@dataclass(frozen=True)
class Heir:
    """A new parameter joins the group of `old`; it takes over its state too where it is the same thing."""

    old: nn.Parameter
    same: bool = False


def reconcile(
    optimizer: torch.optim.Optimizer,
    before: dict[str, nn.Parameter],
    model: nn.Module,
    heirs: dict[int, Heir],
    journal: Journal,
) -> list[str]:
    """Take parameters that left the model out of the optimizer, and put new ones in; returns notes.

    `heirs` maps the id of a new parameter to the old one whose group it joins; where the optimizer does not
    train that, it does not train the new one.
    """
    now = {id(parameter): name for name, parameter in model.named_parameters()}
    left = {id(parameter) for parameter in before.values()} - set(now)
    groups: list[dict[str, Any]] = optimizer.param_groups
    kept = [list(group["params"]) for group in groups]
    state = dict(optimizer.state)

    def restore() -> None:
        for group, parameters in zip(groups, kept, strict=True):
            group["params"] = parameters
        optimizer.state.clear()
        optimizer.state.update(state)

    journal.call(restore)
    added, known = [], {id(parameter) for parameters in kept for parameter in parameters}
    known_before = {id(parameter) for parameter in before.values()}
    for name, parameter in model.named_parameters():
        if id(parameter) in known or id(parameter) in known_before:
            continue
        group = _group_for(parameter, heirs.get(id(parameter)), groups)
        if group is not None and parameter.requires_grad:
            group["params"] = [*group["params"], parameter]
            _inherit(optimizer, parameter, heirs.get(id(parameter)))
            added.append(name)
    removed = 0
    for group in groups:
        staying = [parameter for parameter in group["params"] if id(parameter) not in left]
        removed += len(group["params"]) - len(staying)
        group["params"] = staying
    for known_one in list(optimizer.state):
        if id(known_one) in left:
            del optimizer.state[known_one]
    if removed or added:
        _realign(optimizer, journal)
    notes = []
    if removed:
        notes.append(f"{removed} parameters that are gone left the optimizer")
    if added:
        notes.append(f"new in the optimizer: {', '.join(added[:4])}{', ...' if len(added) > 4 else ''}")
    return notes


def _group_for(
    parameter: nn.Parameter, heir: Heir | None, groups: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The group of the old parameter, or of most parameters of as many dimensions."""
    if heir is not None:
        return next((group for group in groups if any(one is heir.old for one in group["params"])), None)
    counts = [sum((one.dim() > 1) == (parameter.dim() > 1) for one in group["params"]) for group in groups]
    return groups[counts.index(max(counts))] if counts else None


def _realign(optimizer: torch.optim.Optimizer, journal: Journal) -> None:
    """LBFGS keeps its parameters, and directions over all of them in one, besides the groups."""
    if not isinstance(optimizer, torch.optim.LBFGS):
        return
    held = vars(optimizer)
    kept: dict[str, Any] = {name: held[name] for name in ("_params", "_numel_cache") if name in held}
    journal.call(lambda: vars(optimizer).update(kept))
    vars(optimizer).update(_params=optimizer.param_groups[0]["params"], _numel_cache=None)
    optimizer.state.clear()


def _inherit(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, heir: Heir | None) -> None:
    if heir is None or not heir.same or heir.old not in optimizer.state:
        return

    def taken(value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape == heir.old.shape:
            return value.clone().view(parameter.shape)
        return value.clone() if isinstance(value, Tensor) else copy.copy(value)

    if parameter.numel() == heir.old.numel():
        old = optimizer.state[heir.old]
        optimizer.state[parameter] = {key: taken(value) for key, value in old.items()}
