"""The lines of source files and of notebook cells, as they are now."""

from __future__ import annotations

import linecache
from pathlib import Path


def source_lines(file: str) -> list[str]:
    """The lines of a file or cell, with their ends; empty where there is none that can be read."""
    linecache.checkcache(file)
    # linecache looks for relative names along sys.path as well, and would find another file.
    if file not in linecache.cache and not Path(file).is_file():
        return []
    return linecache.getlines(file)
