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


class Sites:
    """Places in running code where objects were made, by identity; holds none of the objects alive."""

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


class Origins(Sites):
    """The construction sites of modules and optimizers, and apart from them those of tensors.

    `tensors` holds where user code made parameters (`nn.Parameter(...)`) and registered buffers;
    `truncations` the arguments of truncated normals, by the address of the memory that they filled.
    `filled` says that uninitialized memory was filled with NaN meanwhile.
    """

    def __init__(self, *, filled: bool = True) -> None:
        super().__init__()
        self.filled = filled
        self.tensors = Sites()
        self.truncations: dict[int, Truncation] = {}


@dataclass(frozen=True)
class Truncation:
    """What a truncated normal was drawn with; `low` and `high` are absolute."""

    shape: tuple[int, ...]
    mean: float
    std: float
    low: float
    high: float


class _Recorder:
    """The wrappers around torch's constructors, in place while at least one thread records."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: list[tuple[int, Origins]] = []
        self._restore: list[tuple[Any, str, Any, Any]] = []

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
            for owner, name, wrapper, before in self._restore:
                if owner.__dict__.get(name) is not wrapper:
                    continue  # someone wrapped ours meanwhile: it only passes calls on from now
                if before is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)
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
            (nn.Module, "__init__", recording_init, init),
            (nn.Module, "__reduce_ex__", recording_reduce, before),
            *_tensor_wrappers(),
        ]
        for owner, name, wrapper, _ in self._restore:
            setattr(owner, name, wrapper)

    def here(self) -> list[Origins]:
        """Who records in this thread."""
        if torch.compiler.is_compiling():
            return []
        thread = threading.get_ident()
        return [origins for owner, origins in self._active if owner == thread]


_RECORDER = _Recorder()


def _tensor_wrappers() -> Iterator[tuple[Any, str, Any, Any]]:
    """Around what makes parameters and buffers: (owner, name, wrapper, what it wraps)."""
    new, copied, register = (
        nn.Parameter.__dict__["__new__"],
        nn.Parameter.__dict__["__deepcopy__"],
        nn.Module.__dict__["register_buffer"],
    )
    make = new.__func__

    @functools.wraps(make)
    def recording_new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        made = make(cls, *args, **kwargs)
        _note_tensor(made, sys._getframe(1))
        return made

    @functools.wraps(copied)
    def recording_copy(self: nn.Parameter, memo: Any) -> Any:
        made = copied(self, memo)
        for origins in _RECORDER.here():
            origins.tensors.add(made, origins.tensors.sites(self))
        return made

    @functools.wraps(register)
    def recording_register(self: nn.Module, name: str, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, torch.Tensor):
            _note_tensor(tensor, sys._getframe(1))
        return register(self, name, tensor, *args, **kwargs)

    yield nn.Parameter, "__new__", staticmethod(recording_new), new
    yield nn.Parameter, "__deepcopy__", recording_copy, copied
    yield nn.Module, "register_buffer", recording_register, register
    # What `nn.init.trunc_normal_` calls, also where it was imported by its name before.
    truncated = getattr(nn.init, "_no_grad_trunc_normal_", None)
    if truncated is not None:

        @functools.wraps(truncated)
        def recording_truncated(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            made = truncated(tensor, *args, **kwargs)
            numbers = dict(zip(("mean", "std", "a", "b"), args, strict=False)) | kwargs
            values: list[Any] = [numbers.get(name) for name in ("mean", "std", "a", "b")]
            if isinstance(tensor, torch.Tensor) and all(isinstance(value, int | float) for value in values):
                for origins in _RECORDER.here():
                    origins.truncations[tensor.data_ptr()] = Truncation(tuple(tensor.shape), *values)
            return made

        yield nn.init, "_no_grad_trunc_normal_", recording_truncated, truncated


def _note_tensor(tensor: torch.Tensor, frame: FrameType) -> None:
    """Note the caller, where that is the user's code (torch's own layers stand for their parameters)."""
    if _kind(frame.f_code.co_filename) == "user":
        for origins in _RECORDER.here():
            origins.tensors.add(tensor, ((frame.f_code, frame.f_lasti),))


@contextmanager
def record_origins(origins: Origins | None = None) -> Iterator[Origins]:
    """Record the construction site of every module that this thread builds inside the block.

    Copies made by the `copy` module take the site of what they are copied from. With `origins`, what is
    recorded goes there.
    """
    entry = (threading.get_ident(), Origins() if origins is None else origins)
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


def resolve(code: CodeType, offset: int) -> Location:
    """The source span of one instruction, with columns counted in characters."""
    return _resolved(code, offset, code.co_filename)


@functools.lru_cache(maxsize=65536)
def _resolved(code: CodeType, offset: int, filename: str) -> Location:
    """`filename` makes a difference: the code of two files with the same text is equal."""
    positions = list(code.co_positions())
    line, end_line, start, end = positions[offset // 2] if 0 <= offset // 2 < len(positions) else (None,) * 4
    if line is None:
        return Location(filename, code.co_firstlineno)
    if start is None or end is None or end_line is None:
        return Location(filename, line)
    return Location(
        file=filename,
        line=line,
        column=character_column(filename, line, start),
        end_line=end_line,
        end_column=character_column(filename, end_line, end),
    )


def character_column(file: str, line: int, offset: int) -> int:
    """Turn an offset in utf-8 bytes (as Python counts) into a column in characters, from 1."""
    text = linecache.getline(file, line)
    if text.isascii():
        return offset + 1
    return len(text.encode()[:offset].decode(errors="ignore")) + 1
