"""A report as a piece of HTML for notebooks: self-contained, escaped, small, no scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.output.charts import charts
from normdoctor.output.page import overview
from normdoctor.output.page.cards import cards
from normdoctor.output.page.engine import fragment, notebook_style
from normdoctor.output.page.pictures import Picture, pictures, prefix_of

if TYPE_CHECKING:
    from normdoctor.report import Report

#: Characters of drawings that a notebook is burdened with; the page holds all of them.
MOST = 60_000


def to_html(report: Report) -> str:
    """Write the verdict and a table of the findings; sources, pictures and skipped rules are folded away."""
    several = len(report.targets) > 1
    drawn, left = _pictures(report)
    return fragment(
        "notebook-report.html",
        style=notebook_style(),
        verdict=overview.verdict(report),
        problems=report.problems,
        cards=cards(report.findings, ()),
        several=several,
        pictures=drawn,
        left=left,
        skipped=overview.by_reason(report.skipped, several=several),
    )


def _pictures(report: Report) -> tuple[list[Picture], str]:
    """The pictures of whole models for which there is room, and where the others are."""
    drawn = [chart for chart in charts(report) if not chart.about]
    found = pictures(drawn, prefix_of(drawn))
    kept: list[Picture] = []
    room = MOST
    for picture in found:
        room -= len(picture.drawing)
        if room < 0:
            break
        kept.append(picture)
    left = len(found) - len(kept)
    return kept, f"{left} more: `report.plot(kind)` draws them, `report.to_html()` has all." if left else ""
