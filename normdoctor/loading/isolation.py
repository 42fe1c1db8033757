"""Everything that a target may change in this process while it is imported, put back afterwards."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import signal
import site
import sys
import sysconfig
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

#: Folders of installed libraries and of Python itself: what is imported from there may stay.
_INSTALLED = tuple(
    {
        os.path.realpath(path) + os.sep
        for path in (
            *sysconfig.get_paths().values(),
            *(site.getsitepackages() if hasattr(site, "getsitepackages") else ()),
            site.getusersitepackages() if hasattr(site, "getusersitepackages") else "",
        )
        if path and os.path.basename(os.path.realpath(path)) not in ("bin", "Scripts", "")
    }
)


@functools.lru_cache(maxsize=8192)
def _real(path: str) -> str:
    return os.path.realpath(path)


def is_installed(file: str) -> bool:
    """Does this file belong to an installed library or to Python itself?"""
    real = _real(file)
    return real.startswith(_INSTALLED) or f"{os.sep}site-packages{os.sep}" in real


def is_own(module: types.ModuleType | None, roots: Sequence[Path]) -> bool:
    """Was this module read from one of the target's folders (and is not installed, nor ours)?"""
    name = getattr(module, "__name__", None) or ""
    if name == "__main__" or name.partition(".")[0] in ("normdoctor", "torch"):
        return False
    for file in (getattr(module, "__file__", None), *_folders(module)):
        if isinstance(file, str) and file and not is_installed(file):
            real = _real(file)
            return any(real.startswith(os.path.join(root, "")) or real == str(root) for root in roots)
    return False


def _is_loose(module: types.ModuleType | None) -> bool:
    """Was this module read from a file that belongs to no installed library, nor to us?"""
    return is_own(module, (Path(os.sep),))


def _folders(module: types.ModuleType | None) -> list[str]:
    """The folders of a package; a namespace package whose parent is gone has none."""
    try:
        return list(getattr(module, "__path__", None) or [])[:1]
    except KeyError:
        return []


class Imports:
    """The search path and the modules that a target was imported with.

    They are taken away after loading and can be put back for as long as the model runs, for files
    that import inside `forward`.
    """

    def __init__(self, roots: Sequence[Path], search: Sequence[str]) -> None:
        self.roots = tuple(roots)
        self.search = list(search)
        self.modules: dict[str, types.ModuleType] = {}
        self.earlier: dict[str, types.ModuleType] = {}  # what was there when they were last put in place

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put the target's modules and search path in place; take them away at the end."""
        before, path = dict(sys.modules), list(sys.path)
        self.earlier = before
        heads = {module.partition(".")[0] for module in self._siblings()} | {
            name.partition(".")[0] for name in self.modules
        }
        for name, module in before.items():
            # also a module of that name from elsewhere, which would be found in place of the target's
            if name.partition(".")[0] in heads and _is_loose(module):
                del sys.modules[name]
        sys.modules.update(self.modules)
        sys.path[:] = self.search + [entry for entry in path if entry not in self.search]
        try:
            yield
        finally:
            sys.path[:] = path
            fresh = {name: module for name, module in sys.modules.items() if before.get(name) is not module}
            gone = {n: m for n, m in fresh.items() if n in self.modules or is_own(m, self.roots)}
            self.modules.update(gone)
            for name in gone:
                del sys.modules[name]
            for name, module in before.items():
                sys.modules.setdefault(name, module)

    def drop(self) -> None:
        """Forget what was imported so far, for another attempt."""
        for name in [name for name, module in sys.modules.items() if is_own(module, self.roots)]:
            del sys.modules[name]
        self.modules.clear()

    def _siblings(self) -> set[str]:
        return {
            entry.stem
            for root in self.roots
            if root.is_dir()
            for entry in root.iterdir()
            if entry.suffix == ".py" or entry.is_dir()
        }


@contextmanager
def preserved() -> Iterator[None]:
    """Put back what belongs to the process: argv, cwd, environment, RNG, signals, torch's settings."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interpreter())
        stack.enter_context(generators())
        stack.enter_context(_signals())
        stack.enter_context(_torch_settings())
        stack.enter_context(warnings.catch_warnings())
        warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]
        lent: Any = _Lent(sys.stderr)
        stack.enter_context(contextlib.redirect_stdout(lent))
        stack.enter_context(contextlib.redirect_stderr(lent))
        yield


@contextmanager
def kept_in_place() -> Iterator[None]:
    """Put back what a forward may change of the process: the current folder and torch's settings."""
    cwd = None
    with contextlib.suppress(OSError):  # the folder may be gone
        cwd = os.getcwd()
    with _torch_settings():
        try:
            yield
        finally:
            if cwd is not None:
                with contextlib.suppress(OSError):
                    os.chdir(cwd)


class _Lent:
    """The stream for a target's prints: one that it can close or replace without taking it from us."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Do nothing: it is not the target's."""

    detach = close


@contextmanager
def _interpreter() -> Iterator[None]:
    argv, argv_content, stdin = sys.argv, list(sys.argv), sys.stdin
    path, path_content, hooks = sys.path, list(sys.path), list(sys.meta_path)
    bytecode, limit, excepthook = sys.dont_write_bytecode, sys.getrecursionlimit(), sys.excepthook
    cwd, environment = os.getcwd(), dict(os.environ)
    sys.dont_write_bytecode = True
    sys.stdin = io.StringIO()
    try:
        yield
    finally:
        sys.argv, sys.argv[:] = argv, argv_content
        sys.path, sys.path[:] = path, path_content
        sys.meta_path[:] = hooks
        sys.stdin, sys.dont_write_bytecode, sys.excepthook = stdin, bytecode, excepthook
        sys.setrecursionlimit(limit)
        with contextlib.suppress(OSError):  # the folder may be gone
            os.chdir(cwd)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)


@contextmanager
def generators() -> Iterator[None]:
    """Seed the random generators inside the block, and put their states back."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state: Any = numpy.random.get_state() if numpy is not None else None
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
        try:
            torch.manual_seed(0)
            random.seed(0)
            if numpy is not None:
                numpy.random.seed(0)
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(state)


@contextmanager
def _signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            now = signal.getsignal(number)
            # torch sets its handler for dead data workers once and for all
            if now is not handler and handler is not None and not _is_torchs(now):
                signal.signal(number, handler)


def _is_torchs(handler: object) -> bool:
    return str(getattr(handler, "__module__", "")).startswith("torch.")


@contextmanager
def _torch_settings() -> Iterator[None]:
    dtype, gradients, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    device = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    anomaly, checks = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    cudnn = torch.backends.cudnn
    flags = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None) is not device:
            torch.set_default_device(None if device is None else device.device)
        torch.autograd.set_detect_anomaly(anomaly, checks)
        # Not without need: in a process that has imported torch's test tools, setting them is an error.
        if (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) != flags:
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
