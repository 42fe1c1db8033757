"""Models that torch itself cannot handle, and errors that the model's own code raises."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from normdoctor.errors import NormDoctorError, TargetError, TraceError, brief, kind_of
from normdoctor.loading import frames
from normdoctor.loading.state import join
from normdoctor.output.paths import shown_path


def flaw(model: nn.Module) -> str:
    """Why this is no working module, neither for torch nor for us; empty when it is one."""
    if isinstance(model, torch.jit.ScriptModule):
        return ""
    try:
        return _flaw(model, "", (), set())
    except RecursionError:
        return "its modules are nested deeper than Python and torch can follow"


def _flaw(module: nn.Module, path: str, above: tuple[int, ...], done: set[int]) -> str:
    where = f" (`{path}`)" if path else ""
    if id(module) in above:
        return f"it is a part of itself{where}"
    if id(module) in done:
        return ""
    done.add(id(module))
    if type(module).__hash__ is None:
        return (
            f"torch cannot look it up, because it has no hash{where}: a dataclass needs @dataclass(eq=False)"
        )
    children = vars(module).get("_modules")
    if children is None:
        return f"its __init__ does not call super().__init__(){where}"
    for name, child in children.items():
        if not isinstance(name, str) or not isinstance(child, nn.Module | None):
            return f"its part {name!r}{where} is {kind_of(child)}: expected a name and a module"
    found = (
        _flaw(child, join(path, name), (*above, id(module)), done)
        for name, child in children.items()
        if isinstance(child, nn.Module)
    )
    return next(filter(None, found), "")


def demand_sound(model: nn.Module, name: str) -> None:
    """Raise TargetError for a model that has a flaw."""
    if reason := flaw(model):
        raise TargetError(f"{name} is no working nn.Module: {reason}")


@contextmanager
def foreign_errors(name: str) -> Iterator[None]:
    """Turn what the model's own code raises, in a property for example, into one clear error.

    An error that comes from our own lines, or torch's, is ours and goes on as it is.
    """
    try:
        yield
    except (NormDoctorError, KeyboardInterrupt):
        raise
    except BaseException as error:
        places = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        code, line = places[-1]
        if not frames.is_outside(code):
            raise
        raise TraceError(
            f"{name} cannot be examined: its own code raised {brief(error)} "
            f"at {shown_path(code.co_filename)}:{line}"
        ) from error
