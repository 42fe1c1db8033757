"""A forward on meta without the import of torch's compiler.

Torch computes the shapes of most pointwise calls in Python, by functions that its compiler must not
look into. It says so of each when it is first called, and for that imports the compiler: 1.5 s of CPU,
half as much as the import of torch itself. Where nothing has been compiled there is nothing to keep
out, so for the time of a forward these functions count as dealt with.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch._compile import _disable_dynamo

with warnings.catch_warnings():
    # Torch says so once in each process without numpy, which is no fault of the user's.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    from torch._decomp import global_decomposition_table

#: The attribute under which torch keeps what it calls in the function's place.
MARK = "__dynamo_disable"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Call these functions as they are, inside the context, unless the compiler is there already."""
    given = [] if "torch._dynamo" in sys.modules else [f for f in _kept_out() if not hasattr(f, MARK)]
    for function in given:
        setattr(function, MARK, function)
    try:
        yield
    finally:
        for function in given:
            if getattr(function, MARK, None) is function:
                delattr(function, MARK)


@cache
def _kept_out() -> tuple[Callable[..., Any], ...]:
    """The functions that torch keeps from its compiler, from the tables of its references.

    Each lies in the closure of the wrapper that imports the compiler, under further decorators. A
    version of torch that does it in another way gives none, and the import takes place.
    """
    wrapper = next((c for c in _disable_dynamo.__code__.co_consts if isinstance(c, CodeType)), None)
    todo: list[Any] = [f for table in global_decomposition_table.values() for f in table.values()]
    todo += [f for module in (torch._refs, torch._refs.nn.functional) for f in vars(module).values()]
    seen: set[int] = set()
    found = []
    while todo:
        function = todo.pop()
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        names = function.__code__.co_freevars
        held = dict(zip(names, (_content(cell) for cell in function.__closure__ or ()), strict=True))
        if function.__code__ is wrapper and isinstance(held.get("fn"), FunctionType):
            found.append(held["fn"])
        todo += held.values()
    return tuple(found)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that was never set
        return None
