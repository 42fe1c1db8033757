"""A chart as an inline SVG: no script, no id but its own, colours that a page can set."""

from __future__ import annotations

from functools import singledispatch

from normdoctor.output.charts.base import Chart, Heat, Lines, Network
from normdoctor.output.charts.pen import safe
from normdoctor.output.charts.svgheat import heat
from normdoctor.output.charts.svglines import lines
from normdoctor.output.charts.svgnetwork import network

#: Width of a drawing in its own units; it scales with the page, up to `WIDEST` pixels.
WIDTH = 480
WIDEST = 720


def to_svg(chart: Chart, prefix: str = "nd") -> str:
    """Draw a chart.

    Args:
        chart: What to draw.
        prefix: How the ids of this drawing begin; give every drawing of a page one of its own.

    Returns:
        An `<svg>` element with a title and a description, which scales to the width of its surroundings.
        The colours are the custom properties of `normdoctor.output.charts.pen.COLORS`.
    """
    body, width, height = _body(chart.drawing)
    name = safe(prefix)
    looks = f"width:100%;max-width:{round(width * WIDEST / WIDTH)}px;height:auto"
    return (
        f'<svg class="nd-chart nd-{safe(chart.kind)}" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" font-size="12" '
        f'font-family="system-ui, sans-serif" style="{looks}">'
        f'<title id="{name}-title">{safe(chart.title)}</title>'
        f'<desc id="{name}-desc">{safe(chart.caption)}</desc>{body}</svg>'
    )


@singledispatch
def _body(drawing: object) -> tuple[str, int, int]:
    raise TypeError(f"there is no drawing of {type(drawing).__name__}")


@_body.register
def _(drawing: Lines) -> tuple[str, int, int]:
    return lines(drawing, WIDTH)


@_body.register
def _(drawing: Heat) -> tuple[str, int, int]:
    return heat(drawing, WIDTH)


@_body.register
def _(drawing: Network) -> tuple[str, int, int]:
    return network(drawing, WIDTH)
