"""The report as JSON, in the versioned layout of `normdoctor.output.schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from normdoctor.output import Format
from normdoctor.output.schema import to_dict

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write JSON, indented, ASCII where the output is not UTF-8."""
    text = msgspec.json.format(msgspec.json.encode(to_dict(report)), indent=2).decode()
    if style.unicode:
        return text + "\n"
    escaped = (char if char.isascii() else _escape(char) for char in text)
    return "".join(escaped) + "\n"


def _escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


FORMAT = Format("json", render, machine=True)
