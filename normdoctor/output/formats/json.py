"""The report as JSON, in the versioned layout of `normdoctor.output.schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.output import Format
from normdoctor.output.plainjson import to_text
from normdoctor.output.schema import to_dict

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write the report as one JSON object."""
    return to_text(to_dict(report), style)


FORMAT = Format("json", render, machine=True)
