"""Finding models and optimizers among variables, in containers, and in the target's own objects."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

_Kind = TypeVar("_Kind")

#: How many items of one list or dict are looked at, and how deep containers may nest.
_MAX_ITEMS = 64
_MAX_DEPTH = 2


def instances_of(kind: type[_Kind], scope: dict[str, Any], own: str) -> Iterator[tuple[str, _Kind]]:
    """Every instance of `kind` in a scope, with a dotted name: `net`, `models.deep`, `trainer.net`.

    `own` is the name of the target's module: only objects of its classes are opened.
    """
    for name, value in list(scope.items()):
        if name.startswith("__"):
            continue
        try:
            found = [] if isinstance(value, ModuleType | type) else list(_inside(kind, name, value, own, 0))
        except Exception:  # an object whose attributes raise holds nothing that can be used
            continue
        yield from found


def _inside(kind: type[_Kind], name: str, value: Any, own: str, depth: int) -> Iterator[tuple[str, _Kind]]:
    items: list[tuple[Any, Any]] = []
    if type(value) in (nn.ModuleList, nn.ModuleDict):
        items = list(value.named_children())
    elif isinstance(value, kind):
        yield name, value
    elif depth >= _MAX_DEPTH or isinstance(value, nn.Module):
        return
    elif isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if isinstance(key, str | int)]
    elif isinstance(value, list | tuple):
        items = list(enumerate(value[:_MAX_ITEMS]))
    elif type(value).__module__ == own:
        items = list(getattr(value, "__dict__", {}).items())
    for key, item in items[:_MAX_ITEMS]:
        yield from _inside(kind, f"{name}.{key}", item, own, depth + 1)
