"""Charts as pictures with their numbers, by what they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from normdoctor.output.charts import Chart
from normdoctor.output.charts.svg import to_svg
from normdoctor.output.page.figures import Table


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart as SVG, and the table of what it shows."""

    key: str
    kind: str
    title: str
    caption: str
    drawing: Markup
    numbers: Table
    target: str


def prefix_of(charts: Sequence[Chart]) -> str:
    """Ids that no other output of a notebook has, unless it shows the same."""
    return f"nd-{hashlib.sha256(repr(charts).encode('utf-8', 'backslashreplace')).hexdigest()[:10]}"


def pictures(charts: Iterable[Chart], prefix: str) -> tuple[Picture, ...]:
    """Draw charts; the ids of their parts begin with the prefix and a number."""
    return tuple(_picture(chart, f"{prefix}-{number}") for number, chart in enumerate(charts, 1))


def _picture(chart: Chart, key: str) -> Picture:
    return Picture(
        key=key,
        kind=chart.kind,
        title=chart.title,
        caption=chart.caption,
        drawing=Markup(to_svg(chart, key)),  # to_svg escapes every text that it draws
        numbers=Table(f"Numbers: {chart.title}", chart.headers, chart.rows),
        target=chart.target,
    )
