"""What fixes do to source: each operation finds its code and gives one or more ways to change it."""

from __future__ import annotations

from collections.abc import Callable

from normdoctor.findings import Edit
from normdoctor.fixing.case import Case
from normdoctor.fixing.operations.build import build
from normdoctor.fixing.operations.comment import comment
from normdoctor.fixing.operations.drop import drop
from normdoctor.fixing.operations.registration import contain, register
from normdoctor.fixing.operations.swap import swap
from normdoctor.fixing.operations.values import argument, constant, functional
from normdoctor.fixing.splices import Change, Refused

#: Action of an edit to what carries it out. The first change that stands its proof is taken.
OPERATIONS: dict[str, Callable[[Case, Edit], list[Change]]] = {
    "argument": argument,
    "build": build,
    "comment": comment,
    "constant": constant,
    "contain": contain,
    "drop": drop,
    "functional": functional,
    "register": register,
    "swap": swap,
}


def changes_of(case: Case) -> list[Change]:
    """The ways to carry out the fix of a finding, the best first.

    Raises:
        Refused: There is none.
    """
    case.check_alone()
    edits = [Edit.argument(name, value) for name, value in case.fix.edits.items()]
    ways: list[list[Change]] = []
    for step in (*edits, *case.fix.steps):
        if step.action not in OPERATIONS:
            raise Refused(f"nothing is known of how to `{step.action}`")
        ways.append(OPERATIONS[step.action](case, step))
    if not ways:
        raise Refused("it is not written down as an edit")
    most = max(len(way) for way in ways)
    found = []
    for number in range(most):
        parts = [way[min(number, len(way) - 1)] for way in ways]
        splices = tuple(dict.fromkeys(splice for part in parts for splice in part.splices))
        found.append(Change(splices, "; ".join(dict.fromkeys(p.note for p in parts if p.note))))
    return found
