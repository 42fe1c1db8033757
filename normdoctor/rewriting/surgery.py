"""Putting one module in the place of another, everywhere, with all that hangs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

#: The dicts of hooks of a module. They are handed over as objects, so that handles still remove from them.
HOOKS = tuple(
    name for name in vars(nn.Module()) if name.endswith(("_hooks", "_with_kwargs", "_always_called"))
)


def paths_of(model: nn.Module) -> dict[int, list[str]]:
    """Every path of each module object: several where it is shared."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(path)
    return found


def carry_over(old: nn.Module, new: nn.Module, own_state: frozenset[str]) -> None:
    """Give `new` what is not the layer itself: parameters, hooks, mode, attributes of the user's.

    Parameters of the same name and shape are the same objects afterwards, so an optimizer of the old model
    trains the new one. `own_state` names what must not outlive the old layer.
    """
    for name, parameter in old._parameters.items():
        known = new._parameters.get(name)
        if name not in own_state and (known is None or parameter is None or known.shape == parameter.shape):
            new._parameters[name] = parameter
    for name, buffer in old._buffers.items():
        if name not in own_state:
            new.register_buffer(name, buffer, persistent=name not in old._non_persistent_buffers_set)
    for name, child in old._modules.items():
        new._modules.setdefault(name, child)
    for name, value in vars(old).items():
        if name in HOOKS or name in ("training", "_is_full_backward_hook"):
            vars(new)[name] = value
        elif name not in own_state:
            vars(new).setdefault(name, value)


def exchange(model: nn.Module, replacements: dict[int, nn.Module]) -> Callable[[], None]:
    """Put the replacements, keyed by the id of the old module, at every place that holds an old one.

    Returns what undoes it. Places are the children of all modules, under every name, and plain
    attributes, lists, tuples and dicts of theirs.
    """
    undo: list[tuple[Any, Any, Any]] = []
    for container, key in list(_places(model, set(replacements))):
        value = container[key]
        undo.append((container, key, value))
        if isinstance(value, tuple):
            container[key] = tuple(replacements.get(id(item), item) for item in value)
        else:
            container[key] = replacements[id(value)]

    def restore() -> None:
        for container, key, value in undo:
            container[key] = value

    return restore


def _places(model: nn.Module, wanted: set[int]) -> Iterator[tuple[Any, Any]]:
    seen: set[int] = set()
    pending: list[Any] = [vars(module) for module in model.modules()]
    while pending:
        container = pending.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            plain_tuple = type(value) is tuple and any(id(item) in wanted for item in value)
            if id(value) in wanted or plain_tuple:
                yield container, key
            elif isinstance(value, list | dict) and key not in HOOKS:
                pending.append(value)
