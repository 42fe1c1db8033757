"""Methods whose names are misspelt: `_init_` and `forword` are never called, and nothing says so."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from types import FunctionType

from torch import nn

#: From this likeness on, a name is taken for a slip.
_ALIKE = 0.8


def misspelt(kinds: Iterable[type]) -> str | None:
    """Say which class defines `_init_` for `__init__` or `forword` for `forward`; None where none does."""
    for kind in dict.fromkeys(kinds):
        if not issubclass(kind, nn.Module) or kind.__module__.startswith("torch."):
            continue
        for name, value in vars(kind).items():
            meant = _meant(kind, name) if isinstance(value, FunctionType) else None
            if meant:
                return f"{kind.__name__} defines `{name}`, which nothing calls: did you mean `{meant}`?"
    return None


def _meant(kind: type[nn.Module], name: str) -> str | None:
    if "__init__" not in vars(kind) and name.startswith("_") and name.endswith("_"):
        return "__init__" if _alike(name.strip("_"), "init") else None
    if kind.forward is nn.Module.forward and _alike(name, "forward"):
        return "forward"
    return None


def _alike(name: str, meant: str) -> bool:
    return SequenceMatcher(None, name.lower(), meant).ratio() >= _ALIKE or sorted(name) == sorted(meant)
