"""Where each module was built: the exact expression, recorded while it is built."""

from __future__ import annotations

import copyreg
import functools
import linecache
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

import normdoctor
from normdoctor.facts import Location

#: How many frames outside the origin are kept.
OUTER_FRAMES = 4

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.abspath(normdoctor.__file__)) + os.sep
_VARARGS = 0x04

#: The files of ours that call into a target: frames outside them are none of the target's.
_BORDER = frozenset(
    os.path.join(_OURS, "loading", f"{name}.py") for name in ("building", "importing", "recovery")
)

#: A place in running code: the code object and the offset of the instruction.
Site = tuple[CodeType, int]


@dataclass(frozen=True)
class Origin:
    """The expression that built a module, and the frames outside it, innermost first."""

    location: Location
    via: tuple[Location, ...] = ()


class Origins:
    """The construction sites of modules and optimizers, by identity; holds none of them alive."""

    def __init__(self) -> None:
        self._sites: dict[int, tuple[weakref.ref[object], tuple[Site, ...]]] = {}

    def of(self, module: object) -> Origin | None:
        """Where `module` was built; None when nobody watched."""
        sites = self.sites(module)
        if not sites:
            return None
        first, *outer = (resolve(*site) for site in sites)
        return Origin(first, tuple(outer))

    def sites(self, module: object) -> tuple[Site, ...]:
        """The unresolved frames of `module`: its origin first, then those outside it."""
        reference, sites = self._sites.get(id(module), (None, ()))
        return sites if reference is not None and reference() is module else ()

    def __len__(self) -> int:
        return len(self._sites)

    def add(self, module: object, sites: tuple[Site, ...]) -> None:
        """Note the frames of `module`; the first note of an object stands."""
        key = id(module)
        known = self._sites.get(key)
        if sites and (known is None or known[0]() is not module):
            self._sites[key] = (weakref.ref(module, functools.partial(self._forget, key)), sites)

    def _forget(self, key: int, reference: weakref.ref[object]) -> None:
        if self._sites.get(key, (None,))[0] is reference:
            del self._sites[key]


class _Recorder:
    """The wrappers around `nn.Module`, in place while at least one thread records."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[tuple[int, Origins]] = []
        self._restore: list[tuple[str, Any, Any]] = []

    def enter(self, entry: tuple[int, Origins]) -> None:
        with self._lock:
            if not self._active:
                self._install()
            self._active.append(entry)

    def leave(self, entry: tuple[int, Origins]) -> None:
        with self._lock:
            self._active = [other for other in self._active if other is not entry]
            if self._active:
                return
            for name, wrapper, before in self._restore:
                if nn.Module.__dict__.get(name) is not wrapper:
                    continue  # someone wrapped ours meanwhile: it only passes calls on from now
                if before is None:
                    delattr(nn.Module, name)
                else:
                    setattr(nn.Module, name, before)
            self._restore = []

    def _install(self) -> None:
        init = nn.Module.__init__
        before = nn.Module.__dict__.get("__reduce_ex__")
        reduce: Callable[[nn.Module, Any], Any] = before or object.__reduce_ex__

        @functools.wraps(init)
        def recording_init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            if recording := _RECORDER.here():
                sites = _walk(self, sys._getframe(1))
                for origins in recording:
                    origins.add(self, sites)
            init(self, *args, **kwargs)

        def recording_reduce(self: nn.Module, protocol: Any) -> Any:
            reduced = reduce(self, protocol)
            if sys._getframe(1).f_globals.get("__name__") != "copy":
                return reduced
            return _copying(self, reduced, _RECORDER.here())

        self._restore = [
            ("__init__", recording_init, init),
            ("__reduce_ex__", recording_reduce, before),
        ]
        for name, wrapper, _ in self._restore:
            setattr(nn.Module, name, wrapper)

    def here(self) -> list[Origins]:
        """Who records in this thread."""
        if torch.compiler.is_compiling():
            return []
        thread = threading.get_ident()
        return [origins for owner, origins in self._active if owner == thread]


_RECORDER = _Recorder()


@contextmanager
def record_origins() -> Iterator[Origins]:
    """Record the construction site of every module that this thread builds inside the block.

    Copies made by the `copy` module take the site of what they are copied from.
    """
    entry = (threading.get_ident(), Origins())
    _RECORDER.enter(entry)
    try:
        yield entry[1]
    finally:
        _RECORDER.leave(entry)


@contextmanager
def record_optimizers(origins: Origins) -> Iterator[None]:
    """Note in `origins` where optimizers are built inside the block."""
    init = torch.optim.Optimizer.__init__

    @functools.wraps(init)
    def recording_init(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        origins.add(self, _walk(self, sys._getframe(1)))
        init(self, *args, **kwargs)

    torch.optim.Optimizer.__init__ = recording_init  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.optim.Optimizer.__init__ = init  # type: ignore[method-assign]


def _copying(module: nn.Module, reduced: Any, recording: list[Origins]) -> Any:
    """Make what `copy` reconstructs from `reduced` inherit the sites of `module`."""
    known = [(origins, sites) for origins in recording if (sites := origins.sites(module))]
    if not known or not isinstance(reduced, tuple) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
        return reduced

    def recreate(cls: type[nn.Module], *args: Any) -> nn.Module:
        made = cls.__new__(cls, *args)
        for origins, sites in known:
            origins.add(made, sites)
        return made

    return (recreate, *reduced[1:])


def _walk(module: object, start: FrameType | None) -> tuple[Site, ...]:
    """The first frame that is neither torch's, ours, nor the object's own, and those outside it."""
    frame = start
    sites: list[Site] = []
    while frame is not None and len(sites) <= OUTER_FRAMES:
        kind = _kind(frame.f_code.co_filename)
        if kind == "border" or (sites and kind == "ours"):
            break
        if kind == "user" and (sites or not _is_own_method(module, frame)):
            sites.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(sites)


@functools.lru_cache(maxsize=4096)
def _kind(filename: str) -> str:
    if filename.startswith((_TORCH, "<frozen", "<string")):
        return "torch"
    if not filename.startswith(_OURS):
        return "user"
    return "border" if filename in _BORDER else "ours"


def _is_own_method(module: object, frame: FrameType) -> bool:
    """Is the object the first argument of this frame (or is it the metaclass's `__call__`)?"""
    code = frame.f_code
    if code.co_argcount:
        first = frame.f_locals.get(code.co_varnames[0])
        return first is module or (code.co_name == "__call__" and first is type(module))
    if code.co_flags & _VARARGS:
        rest = frame.f_locals.get(code.co_varnames[code.co_kwonlyargcount])
        return isinstance(rest, tuple) and bool(rest) and rest[0] is module
    return False


@functools.lru_cache(maxsize=65536)
def resolve(code: CodeType, offset: int) -> Location:
    """The source span of one instruction, with columns counted in characters."""
    positions = list(code.co_positions())
    line, end_line, start, end = positions[offset // 2] if 0 <= offset // 2 < len(positions) else (None,) * 4
    if line is None:
        return Location(code.co_filename, code.co_firstlineno)
    if start is None or end is None or end_line is None:
        return Location(code.co_filename, line)
    return Location(
        file=code.co_filename,
        line=line,
        column=character_column(code.co_filename, line, start),
        end_line=end_line,
        end_column=character_column(code.co_filename, end_line, end),
    )


def character_column(file: str, line: int, offset: int) -> int:
    """Turn an offset in utf-8 bytes (as Python counts) into a column in characters, from 1."""
    text = linecache.getline(file, line)
    if text.isascii():
        return offset + 1
    return len(text.encode()[:offset].decode(errors="ignore")) + 1
