"""The report as JSON, in the versioned layout of `normdoctor.output.schema`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from normdoctor.output import Format
from normdoctor.output.schema import to_dict

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report

#: DEL, C1 controls and the marks that reorder text; JSON itself escapes the other controls.
UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NOT_ASCII = re.compile("[^\x00-\x7e]")


def render(report: Report, style: Style) -> str:
    """Write JSON, indented; what a terminal must not get, or cannot show, is escaped."""
    text = msgspec.json.format(msgspec.json.encode(to_dict(report)), indent=2).decode()
    pattern = UNSAFE_IN_JSON if style.unicode else NOT_ASCII
    return pattern.sub(_escape, text) + "\n"


def _escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


FORMAT = Format("json", render, machine=True)
