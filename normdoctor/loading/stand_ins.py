"""What stands in, while a target is imported, for things that this machine does not offer.

No network, no CUDA device, no command line, no say over this process: each block replaces one of them
and puts it back.
"""

from __future__ import annotations

import argparse
import functools
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")

#: What a required argument gets when nobody gives one. 8 divides most widths and head counts.
_PLACEHOLDERS: dict[Any, Any] = {int: 8, float: 0.1, str: "placeholder", None: "placeholder"}


class NetworkBlockedError(OSError):
    """The target tried to reach the network while it was imported."""


@contextmanager
def no_network() -> Iterator[None]:
    """Refuse connections and name look-ups other than to this machine."""
    names = ("connect", "connect_ex")
    before = {name: socket.socket.__dict__.get(name) for name in names}
    originals = {name: getattr(socket.socket, name) for name in names}
    getaddrinfo = socket.getaddrinfo

    def guard(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def connect(self: socket.socket, address: Any, *args: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else "localhost"
            _refuse(host)
            return original(self, address, *args)

        return connect

    @functools.wraps(getaddrinfo)
    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse(host)
        return getaddrinfo(host, *args, **kwargs)

    for name in names:
        setattr(socket.socket, name, guard(originals[name]))
    socket.getaddrinfo = lookup
    try:
        yield
    finally:
        socket.getaddrinfo = getaddrinfo
        for name in names:
            if before[name] is None:
                delattr(socket.socket, name)
            else:
                setattr(socket.socket, name, before[name])


def _refuse(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name and not str(name).startswith(_LOOPBACK):
        raise NetworkBlockedError(f"the network is off while a target is imported (it asked for {name})")


@contextmanager
def kept_alive() -> Iterator[None]:
    """Let `os._exit()` be a `sys.exit()`, and let no thread of the target's keep this process running."""
    leave, start, owner = os._exit, threading.Thread.start, os.getpid()

    def exit_(status: int = 0) -> Any:
        if os.getpid() != owner:  # a child made by fork has to end here
            leave(status)
        raise SystemExit(status)

    @functools.wraps(start)
    def start_daemon(self: threading.Thread) -> None:
        if not self.is_alive():
            self.daemon = True
        start(self)

    os._exit = exit_
    threading.Thread.start = start_daemon  # type: ignore[method-assign]
    try:
        yield
    finally:
        os._exit = leave
        threading.Thread.start = start  # type: ignore[method-assign]


class _CpuForCuda(TorchFunctionMode):
    """Reads every mention of a CUDA device as the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if "device" in kwargs:
            kwargs = {**kwargs, "device": _cpu(kwargs["device"])}
        if func is torch.Tensor.to:
            args = (args[0], *(_cpu(value) for value in args[1:]))
        return func(*args, **kwargs)


def _cpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    if isinstance(value, str) and value.partition(":")[0] == "cuda":
        return "cpu"
    return value


@contextmanager
def cpu_for_cuda() -> Iterator[None]:
    """Where there is no CUDA device, let `.cuda()` and `device="cuda"` mean the CPU."""
    if torch.cuda.is_available():
        yield
        return
    with _CpuForCuda():
        yield


@contextmanager
def filled_memory() -> Iterator[None]:
    """Let torch fill uninitialized memory with NaN, so that forgotten parameters can be seen."""
    from torch.utils import deterministic

    # the debug mode, because torch.use_deterministic_algorithms imports all of Inductor
    before = torch.get_deterministic_debug_mode()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("warn")
    deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic.*")
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


@contextmanager
def lenient_arguments(notes: list[str]) -> Iterator[None]:
    """Let `argparse` go on without required arguments: placeholders of the right type stand in."""
    original = argparse.ArgumentParser.parse_known_args

    @functools.wraps(original)
    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        missing = [action for action in self._actions if _is_required(action)]
        settings = [(action, action.required, action.nargs) for action in missing]
        groups = [(group, group.required) for group in self._mutually_exclusive_groups]
        for action, _, _ in settings:
            action.required = False
            if isinstance(action, argparse._SubParsersAction):
                continue
            if not action.option_strings and action.nargs in (None, "+"):
                action.nargs = "?" if action.nargs is None else "*"
        for group, _ in groups:
            group.required = False
        try:
            parsed, extra = original(self, args, namespace)
        finally:
            for action, required, nargs in settings:
                action.required, action.nargs = required, nargs
            for group, required in groups:
                group.required = required
        for action in missing:
            if isinstance(action, argparse._SubParsersAction):
                _first_command(action, parsed)
            elif getattr(parsed, action.dest, None) in (None, []):
                value = _placeholder(action)
                setattr(parsed, action.dest, value)
                flag = (action.option_strings or [action.dest])[-1]
                notes.append(f"the required argument {flag} got the placeholder {value!r}")
        return parsed, extra

    argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args = original  # type: ignore[method-assign]


def _first_command(action: argparse._SubParsersAction[Any], parsed: argparse.Namespace) -> None:
    """Where a command is required, take the first one with its defaults."""
    if getattr(parsed, action.dest, None) is None and action.choices:
        name, parser = next(iter(action.choices.items()))
        if action.dest != argparse.SUPPRESS:
            setattr(parsed, action.dest, name)
        for key, value in vars(parser.parse_known_args([])[0]).items():
            if not hasattr(parsed, key):
                setattr(parsed, key, value)


def _is_required(action: argparse.Action) -> bool:
    return action.required or (
        not action.option_strings and action.nargs not in ("?", "*", argparse.REMAINDER)
    )


def _placeholder(action: argparse.Action) -> Any:
    """A value of the type that the argument asks for."""
    if action.choices:
        return next(iter(action.choices))
    value = _PLACEHOLDERS.get(action.type)
    if value is None and callable(action.type):
        for text in ("8", "true", "placeholder"):
            try:
                value = action.type(text)
                break
            except Exception:
                continue
    many = isinstance(action.nargs, int) or action.nargs in ("+", "*")
    count = action.nargs if isinstance(action.nargs, int) else 1
    return [value] * count if many else value
