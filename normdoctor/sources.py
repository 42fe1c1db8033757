"""The lines of source files and of notebook cells, as they are now."""

from __future__ import annotations

import linecache
import sysconfig
from pathlib import Path

#: Folders of installed packages: what lies below is not the user's to edit.
INSTALLED = frozenset({"site-packages", "dist-packages"})


def installed(file: str) -> bool:
    """Is it a file of an installed package or of Python itself?"""
    path = Path(file).resolve()
    return bool(INSTALLED & set(path.parts)) or path.is_relative_to(sysconfig.get_path("stdlib"))


def in_project(file: str, root: Path) -> bool:
    """Is it a source file of the user's: below the root of the project, and not installed?"""
    path = Path(file)
    return path.is_file() and path.resolve().is_relative_to(root.resolve()) and not installed(file)


def source_lines(file: str) -> list[str]:
    """The lines of a file or cell, with their ends; empty where there is none that can be read."""
    linecache.checkcache(file)
    # linecache looks for relative names along sys.path as well, and would find another file.
    if file not in linecache.cache and not Path(file).is_file():
        return []
    return linecache.getlines(file)
