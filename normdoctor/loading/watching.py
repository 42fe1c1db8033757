"""Watching a target while it runs: the inputs of its first calls, and the moment to stop it."""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from normdoctor.errors import brief
from normdoctor.loading.isolation import is_installed
from normdoctor.loading.timelimit import hasten
from normdoctor.loading.wrappers import wrapped

_OURS = str(Path(__file__).resolve().parent)

#: Frames of these files are the border between the target's code and whoever asked for it.
_LOADERS = tuple(str(Path(_OURS) / name) for name in ("importing.py", "recovery.py", "selecting.py"))

#: Tensors with more elements are not copied when inputs are captured.
_COPY_LIMIT = 1 << 26


class Stopped(BaseException):
    """Ends the import; no `except Exception` of the target's can catch it."""


@dataclass
class Watch:
    """What was seen while the target ran.

    `scopes` are the local variables of the target's frames at the stop, outermost first, with the
    name of the function. `calls` holds the first outermost call of each module, by identity.
    """

    roots: tuple[Path, ...]
    scopes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    calls: dict[int, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    reason: str | None = None
    where: str | None = None
    ended: str = ""
    """What ended it: training, time, exit, error; empty when it ran to its end."""

    def reset(self) -> None:
        """Forget everything, for another attempt."""
        self.scopes, self.calls = [], {}
        self.reason, self.where, self.ended = None, None, ""

    def reset_scopes(self) -> None:
        """Forget where it stood, and keep the calls."""
        self.scopes = []

    def stop(self, kind: str, reason: str, frame: FrameType | None) -> Stopped:
        """Note where the target stands, once, and return what ends it."""
        if self.ended:
            hasten()  # the target has swallowed the first one
        else:
            frames = []
            while frame is not None and frame.f_code.co_filename not in _LOADERS:
                frames.append((frame, frame.f_lineno))
                frame = frame.f_back
            self._note(kind, reason, frames[::-1])
        return Stopped(reason)

    def failed(self, error: BaseException) -> None:
        """Note an exception that ended the target."""
        if self.ended or isinstance(error, Stopped):
            return
        frames = list(traceback.walk_tb(error.__traceback__))
        if isinstance(error, SystemExit):
            self._note(
                "exit", f"it called sys.exit({'' if error.code is None else repr(error.code)})", frames
            )
        else:
            self._note("error", brief(error), frames)

    def _note(self, kind: str, reason: str, frames: Sequence[tuple[FrameType, int]]) -> None:
        own = [(frame, line) for frame, line in frames if self._is_own(frame)]
        self.ended, self.reason = kind, reason
        if own:
            self.where = f"{own[-1][0].f_code.co_filename}:{own[-1][1]}"
        self.scopes = [
            (frame.f_code.co_name, _variables(frame))
            for frame, _ in own
            if frame.f_code.co_name != "<module>"
        ]

    def _is_own(self, frame: FrameType) -> bool:
        file = frame.f_code.co_filename
        if file.startswith(_OURS) or is_installed(file):
            return False
        return any(file.startswith(str(root)) for root in self.roots)

    def called(self, module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of the first outermost call of `module`."""
        entry = self.calls.get(id(module))
        return entry[1:] if entry is not None and entry[0] is module else None


def _variables(frame: FrameType) -> dict[str, Any]:
    """The local variables of a frame; a module that its `__init__` is still building is left out."""
    variables = dict(frame.f_locals)
    if frame.f_code.co_name == "__init__" and frame.f_code.co_argcount:
        first = frame.f_code.co_varnames[0]
        if isinstance(variables.get(first), nn.Module):
            del variables[first]
    return variables


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Capture first calls, and stop this thread at the first backward pass or optimizer step."""
    owner, depth = threading.get_ident(), 0
    call: Any = nn.Module.__call__
    backward: Any = torch.autograd.backward
    tensor_backward: Any = torch.Tensor.backward

    @functools.wraps(call)
    def watched_call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        if threading.get_ident() != owner:
            return call(self, *args, **kwargs)
        if not depth and id(self) not in watch.calls:
            watch.calls[id(self)] = (self, copied(args), copied(kwargs))
        inner = 0 if is_wrapper(self) else 1
        depth += inner
        try:
            return call(self, *args, **kwargs)
        finally:
            depth -= inner

    def halt(what: str) -> None:
        if threading.get_ident() == owner:
            raise watch.stop("training", f"training began ({what})", sys._getframe(2))

    @functools.wraps(backward)
    def watched_backward(*args: Any, **kwargs: Any) -> Any:
        halt("backward")
        return backward(*args, **kwargs)

    @functools.wraps(tensor_backward)
    def watched_tensor_backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        halt("backward")
        return tensor_backward(self, *args, **kwargs)

    def before_step(*_: Any) -> None:
        halt("optimizer.step")

    handle = register_optimizer_step_pre_hook(before_step)
    nn.Module.__call__ = watched_call  # type: ignore[method-assign]
    torch.autograd.backward = watched_backward
    torch.Tensor.backward = watched_tensor_backward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]
        torch.autograd.backward = backward
        torch.Tensor.backward = tensor_backward  # type: ignore[method-assign]
        handle.remove()


def is_wrapper(module: nn.Module) -> bool:
    """Does this module only pass its input to another one (DataParallel, DDP, compiled)?"""
    return wrapped(module) is not None


def copied(value: Any) -> Any:
    """Copy tensors inside tuples, lists and dicts, so that later in-place changes do not show."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.numel() <= _COPY_LIMIT else value.detach()
    if isinstance(value, dict) and type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(copied(item) for item in value)
    return value


def traceback_free(error: BaseException) -> None:
    """Let go of the frames that an exception holds."""
    current: BaseException | None = error
    while current is not None:
        trace: TracebackType | None = current.__traceback__
        current.__traceback__ = None
        del trace
        current = current.__context__
