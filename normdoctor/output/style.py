"""How text may look: colour, width and characters, decided once and handed to every writer."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

#: The width of a table that goes to a file or a pipe: nothing is cut there.
UNLIMITED = 1_000_000

CODES = {"bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "dim": 2}

#: Terminal controls (C0 but for tab, DEL, C1), lone surrogates, and the marks that reorder text.
UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """The look of a rendering. The default is plain text for files, tests and `str(report)`."""

    color: bool = False
    unicode: bool = True
    width: int = 80
    verbosity: int = 0
    show_skipped: bool = False
    show_problems: bool = True
    library: bool = False  # hints name what Python has, not options of the command line

    def paint(self, text: str, *looks: str) -> str:
        """Wrap text in the escape codes for `bold`, `red`, ... where colour is on."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(str(CODES[look]) for look in looks)}m{text}\x1b[0m"

    def clean(self, text: str) -> str:
        """Make foreign text harmless: controls are written out, and so is what cannot be shown."""
        escaped = UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
        return escaped if self.unicode else escaped.encode("ascii", "backslashreplace").decode()


def wants_color(choice: str, stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Decide on colour: the option, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


def wants_unicode(stream: TextIO) -> bool:
    """Can the stream show more than ASCII?"""
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") in ("utf8", "utf8sig")


def text_width(stream: TextIO, otherwise: int = 80) -> int:
    """The width of the terminal, what COLUMNS says, or `otherwise`."""
    if stream.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(40, shutil.get_terminal_size((otherwise, 24)).columns)
    return otherwise
