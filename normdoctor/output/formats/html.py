"""The report as one web page that needs nothing else, for looking at and for handing on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.output import Format

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write the page; where the output cannot show more than ASCII, the rest stands as references."""
    from normdoctor.output.page.report import report_page

    text = report_page(report)
    return text if style.unicode else text.encode("ascii", "xmlcharrefreplace").decode()


FORMAT = Format("html", render, machine=True)
