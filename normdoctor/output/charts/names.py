"""What places of a model are called in charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def brief(places: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Names for an axis, of (site, module) each: the module where one site has a name of it."""
    counted = Counter(module for _, module in places)
    return tuple(
        module if module and counted[module] == 1 and not module.rpartition(".")[2].isdigit() else site
        for site, module in places
    )


def called(module: str, call: int = 0) -> str:
    """A module by its path, with the call where it is not the first of its kind there."""
    name = module or "the model"
    return f"{name} (call {call + 1})" if call else name
