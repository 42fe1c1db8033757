"""A time limit that interrupts running code, also an endless loop or a long sleep."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: After the limit the interruption is repeated this often, for code that swallows it.
REPEAT_SECONDS = 0.5
HASTY_SECONDS = 0.03


@contextmanager
def time_limit(seconds: float, interrupt: Callable[[FrameType | None], BaseException]) -> Iterator[None]:
    """Raise `interrupt(frame)` inside the block once `seconds` have passed.

    In the main thread a timer signal does it, which also ends `time.sleep`. Elsewhere a watchdog
    raises between two bytecodes, so a call into C is only left when it returns.
    """
    here = threading.current_thread() is threading.main_thread()
    if here and hasattr(signal, "setitimer"):
        with _by_signal(seconds, interrupt):
            yield
    else:
        with _by_watchdog(seconds, interrupt):
            yield


def hasten() -> None:
    """Let a running time limit expire at once, and again and again, wherever the code stands."""
    here = threading.current_thread() is threading.main_thread()
    if here and hasattr(signal, "setitimer"):
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if interval == REPEAT_SECONDS and left > HASTY_SECONDS:
            signal.setitimer(signal.ITIMER_REAL, HASTY_SECONDS, REPEAT_SECONDS)


@contextmanager
def _by_signal(seconds: float, interrupt: Callable[[FrameType | None], BaseException]) -> Iterator[None]:
    armed = True

    def expired(_signal: int, frame: FrameType | None) -> None:
        if armed:
            raise interrupt(frame)

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, expired)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_SECONDS)
    try:
        try:
            yield
        finally:
            armed = False  # should the signal come just now, the outer block still cleans up
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:
            left = max(remaining - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextmanager
def _by_watchdog(seconds: float, interrupt: Callable[[FrameType | None], BaseException]) -> Iterator[None]:
    import sys

    thread = threading.get_ident()
    done = threading.Event()
    lock = threading.Lock()

    class Expired(BaseException):
        """Raised asynchronously: only a class can be, so it asks for the real error itself."""

    def throw(kind: Any) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), kind)

    frames: list[FrameType | None] = []

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            with lock:
                if done.is_set():
                    return
                frames[:] = [sys._current_frames().get(thread)]
                throw(ctypes.py_object(Expired))
            wait = REPEAT_SECONDS

    watchdog = threading.Thread(target=watch, daemon=True, name="normdoctor-time-limit")
    watchdog.start()
    try:
        yield
    except Expired:
        done.set()
        raise interrupt(frames[0] if frames else None) from None
    finally:
        with lock:
            done.set()
            throw(None)
