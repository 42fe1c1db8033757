"""A line on a terminal that says how far a long measurement is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

#: Seconds before the line appears, and between two of its states.
DELAY = 1.0
INTERVAL = 0.1
_WIDTH = 24


class Progress:
    """Counts batches on stderr, after a second, on a terminal only; gone when it is closed."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self.what = what
        self._stream = sys.stderr if stream is None else stream
        self._shown = 0
        self._due = time.monotonic() + DELAY
        self._silent = not self._stream.isatty()

    def __call__(self, done: int, total: int | None) -> None:
        """`done` of `total` batches are measured; nobody knows how many there are when it is None."""
        now = time.monotonic()
        if self._silent or now < self._due:
            return
        self._due = now + INTERVAL
        self._write(f"{self.what}: {_bar(done, total)}")

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._shown))
        self._stream.flush()
        self._shown = len(text)


def _bar(done: int, total: int | None) -> str:
    if not total:
        return f"{done} batches"
    full = _WIDTH * min(done, total) // total
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {done} of {total} batches"
