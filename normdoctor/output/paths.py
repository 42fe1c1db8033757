"""How files are named to the reader: relative to the current folder where they lie in it."""

from __future__ import annotations

import os
from pathlib import Path

from normdoctor.facts import Location
from normdoctor.findings import Finding, node_id


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


def inside(file: str) -> str | None:
    """The path relative to the current folder; None for a file outside, or for none at all."""
    path = shown_path(file)
    return None if Path(path).is_absolute() or path.startswith(("../", "<")) else path


def anchor_file(finding: Finding) -> str | None:
    """The file to hang a finding on: that of its span, otherwise the one that its target was loaded from.

    None for a library's file and for a live model: services that annotate a repository cannot show these.
    """
    if finding.location is not None and (own := inside(finding.location.file)) is not None:
        return own
    return target_file(finding.target)


def target_file(target: str) -> str | None:
    """The file of a target such as `models/net.py:Net`, where it lies below the current folder."""
    file = node_id(target).partition("::")[0]
    return inside(file) if file.endswith(".py") else None
