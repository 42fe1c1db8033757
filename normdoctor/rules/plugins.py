"""The entry points of other packages, without the price of asking where there are none.

`importlib.metadata` takes as long to import as all rules do, since it brings the parser of mails
along. So the files that declare entry points are looked through first.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of this group that installed packages declare."""
    if not _may_be_declared(group):
        return ()
    from importlib import metadata

    return tuple(metadata.entry_points(group=group))


def _may_be_declared(group: str) -> bool:
    """Does a file of entry points name the group, or is there a place that cannot be looked through?"""
    if any(hasattr(finder, "find_distributions") for finder in sys.meta_path if finder is not PathFinder):
        return True
    return any(_names(folder or os.curdir, group.encode()) for folder in dict.fromkeys(sys.path))


def _names(folder: str, group: bytes) -> bool:
    if folder.endswith(".egg"):
        return True
    try:
        inside = os.listdir(folder)
    except FileNotFoundError:
        return False
    except OSError:  # a zip file
        return True
    for name in inside:
        if name.endswith((".dist-info", ".egg-info", ".egg")):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                    if group in file.read():
                        return True
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return True
    return False
