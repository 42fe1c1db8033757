"""The table of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .source import Mutant, Source

#: Yields edits, the node at which they stand, and (maybe) why this mutant is no fault.
Operator = Callable[[Source], Iterator[tuple]]
OPERATORS: dict[str, Callable[[Source], Iterator[Mutant]]] = {}


def operator(codes: str) -> Callable[[Operator], Operator]:
    """Register a generator of (edits, place[, void]) whose findings may have any of these codes."""

    def register(function: Operator) -> Operator:
        name = function.__name__.replace("_", "-")

        def mutants(source: Source) -> Iterator[Mutant]:
            for edits, place, *void in function(source):
                if all(edit is not None for edit in edits):
                    yield source.mutant(name, codes, edits, place, void=void[0] if void else "")

        OPERATORS[name] = mutants
        return function

    return register
