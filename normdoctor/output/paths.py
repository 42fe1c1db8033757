"""How files are named to the reader: relative to the current folder where they lie in it."""

from __future__ import annotations

import os
from pathlib import Path

from normdoctor.facts import Location


def shown_path(file: str) -> str:
    """The path relative to the current folder if it lies below, otherwise as it is."""
    path = Path(file)
    if not path.is_absolute():
        return path.as_posix()
    folder = Path(os.getcwd())
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def shown(location: Location) -> str:
    """`model.py:9:19`."""
    return f"{shown_path(location.file)}:{location.line}:{location.column}"
