"""Which layers a conversion is to touch: by path, type, predicate, or what a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeGuard

from torch import nn

from normdoctor.errors import NormDoctorError, UsageError, brief, kind_of
from normdoctor.findings import Finding
from normdoctor.report import Report

Predicate = Callable[[str, nn.Module], bool]
#: Glob patterns of paths, types of layers, findings or a report of `check`, or a function of path and module.
Where = (
    str
    | type[nn.Module]
    | Finding
    | Report
    | Iterable[str]
    | Iterable[type[nn.Module]]
    | Iterable[Finding]
    | Predicate
)


def predicate(where: Any) -> Predicate:
    """The function that `where` stands for; all layers for None.

    Raises:
        UsageError: If it is nothing of the kind.
    """
    if where is None:
        return lambda path, module: True
    if isinstance(where, Report):
        return predicate(list(where.findings)) if where.findings else lambda path, module: False
    if _is_type(where) or isinstance(where, str | Finding):
        where = [where]
    if callable(where) and not isinstance(where, nn.Module | type):
        return _guarded(where)
    items = list(where) if isinstance(where, Iterable) and not isinstance(where, nn.Module) else [where]
    types = tuple(item for item in items if _is_type(item))
    patterns = [item for item in items if isinstance(item, str)]
    paths = {path for item in items if isinstance(item, Finding) for path in item.modules}
    if len(types) + len(patterns) + sum(isinstance(item, Finding) for item in items) != len(items):
        raise UsageError(
            f"where is {kind_of(where)}: expected patterns of paths, types, findings, or a function of path "
            "and module",
            hint='For example where="layer1.*" or where=lambda path, module: "layer1" in path.',
        )

    def chosen(path: str, module: nn.Module) -> bool:
        if isinstance(module, types) or path in paths:
            return True
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    return chosen


def _guarded(function: Predicate) -> Predicate:
    """The function, whose errors say where they come from."""

    def chosen(path: str, module: nn.Module) -> bool:
        try:
            return bool(function(path, module))
        except NormDoctorError:
            raise
        except Exception as error:
            raise UsageError(
                f"the function given as where raised for `{path}`: {brief(error)}",
                hint="It is called with the path and the module, and returns True or False.",
            ) from error

    return chosen


def _is_type(value: object) -> TypeGuard[type[nn.Module]]:
    return isinstance(value, type) and issubclass(value, nn.Module)
