"""Which attributes a forward names on any of its paths, read off its compiled code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import cache
from types import CodeType, FunctionType


@cache
def named_by_forward(kind: Hashable) -> frozenset[str]:
    """The names that a class's forward, and the methods that it calls, look up on objects.

    A layer that is named there and did not run stands on a path that this call did not take.
    """
    found: set[str] = set()
    pending = ["forward"]
    while pending:
        method = getattr(kind, pending.pop(), None)
        if isinstance(method, FunctionType):
            new = set(_names(method.__code__)) - found
            found |= new
            pending += new
    return frozenset(found)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):  # getattr(self, "norm2")
            yield constant
