"""The table of faults: the rule that finds each, and the nets in which it is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Changes a scene, and says where the fault then stands: the path of a module, what a message names in
#: backticks, or a source line.
Plant = Callable[[Any], str]


class Fault(NamedTuple):
    """A fault; `beside` are the rules that may find consequences of it."""

    plant: Plant
    scene: type
    nets: Sequence[type]
    beside: frozenset[str]


FAULTS: dict[str, Fault] = {}


def fault(code: str, scene: type, nets: Sequence[type], beside: str = "") -> Callable[[Plant], Plant]:
    """Enter a fault into the table."""

    def enter(plant: Plant) -> Plant:
        assert code not in FAULTS
        FAULTS[code] = Fault(plant, scene, nets, frozenset(beside.split()))
        return plant

    return enter
