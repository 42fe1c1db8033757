"""Lines and points over depth or size."""

from __future__ import annotations

import math
from typing import NamedTuple

from normdoctor.output.charts.base import Lines, Series
from normdoctor.output.charts.pen import SIZE, at, colour, length, line, names_below, text, tip
from normdoctor.output.charts.scales import Range, drawable, range_of, thinned, tick

#: Height of the plotted area, most labels along x, and most points with a tip.
HEIGHT = 190
LABELS = 12
TIPS = 200
#: Colours of the series, in their order.
INKS = ("1", "2", "3", "4")
#: The radius of a point, where there is room for it.
RADIUS = 2.6
DASHES = "5 3"


class Entry(NamedTuple):
    """One entry of the legend."""

    name: str
    ink: str
    level: bool = False

    @property
    def wide(self) -> float:
        """How much room it takes."""
        return 16 + length(self.name) + 16


class Frame:
    """The plotted area: where a pair of values stands on paper."""

    def __init__(self, drawing: Lines, width: int) -> None:
        shown = [value for one in drawing.series for value in one.y]
        levels = [value for value, _ in drawing.levels]
        self.drawing, self.width = drawing, width
        self.y: Range = range_of([*shown, *levels], drawing.y)
        self.x = _range_x(drawing)
        self.legend = _legend_rows(drawing, width)
        self.left = 16 + SIZE + max(length(tick(value)) for value in self.y.ticks)
        self.top = 12.0 + 18 * len(self.legend)
        self.right = width - 12.0
        self.bottom = self.top + HEIGHT

    def at_x(self, value: float) -> float:
        """A place between the left and the right edge."""
        return self.left + self.x.share(value) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """NaN and infinity stand at the top edge; on a logarithmic scale zero at the bottom."""
        if drawable(value, self.drawing.y):
            return self.bottom - self.y.share(value) * HEIGHT
        return self.top if not math.isfinite(value) else self.bottom


def _range_x(drawing: Lines) -> Range:
    names, ticks = drawing.x.names, drawing.x.ticks
    if names:
        return Range(low=-0.5, high=len(names) - 0.5, scale="linear", ticks=())
    if ticks:
        return Range(low=ticks[0], high=ticks[-1], scale=drawing.x.scale, ticks=ticks)
    return range_of([value for one in drawing.series for value in one.x], drawing.x, 10)


def lines(drawing: Lines, width: int) -> tuple[str, int, int]:
    """The body of the drawing, its width and its height."""
    frame = Frame(drawing, width)
    below, height = _below(frame)
    parts = [*_grid(frame), *below, *_legend(frame)]
    tips = sum(len(one.x) for one in drawing.series if not one.faint) <= TIPS
    inks = {one.name: one.ink for row in frame.legend for one in row if not one.level}
    for series in sorted(drawing.series, key=lambda one: not one.faint):
        parts += _series(frame, series, inks.get(series.name, "muted"), tips=tips)
    parts += _levels(frame)
    return "".join(parts), width, height


def _grid(frame: Frame) -> list[str]:
    parts = []
    for value in frame.y.ticks:
        y = frame.at_y(value)
        parts.append(line(frame.left, y, frame.right, y))
        parts.append(text(frame.left - 6, y + 4, tick(value), anchor="end"))
    middle = (frame.top + frame.bottom) / 2
    parts.append(text(SIZE, middle, frame.drawing.y.label, anchor="middle", turn=-90))
    return parts


def _levels(frame: Frame) -> list[str]:
    """Lines to compare with; the legend says which they are."""
    return [
        line(frame.left, frame.at_y(value), frame.right, frame.at_y(value), "bad", DASHES)
        for value, _ in frame.drawing.levels
    ]


def _below(frame: Frame) -> tuple[list[str], int]:
    """The labels along x, and the height of the whole."""
    names, y = frame.drawing.x.names, frame.bottom + 16
    if names:
        chosen = thinned(len(names), LABELS)
        parts, deep = names_below([(frame.at_x(place), names[place]) for place in chosen], frame.bottom)
        y += deep + 12
    else:
        parts = [text(frame.at_x(v), y, tick(v), anchor="middle") for v in frame.x.ticks]
        y += 18
    parts.append(text((frame.left + frame.right) / 2, y, frame.drawing.x.label, anchor="middle"))
    return parts, math.ceil(y + 8)


def _legend_rows(drawing: Lines, width: int) -> list[list[Entry]]:
    """The entries of the legend, in as many rows as they need: series that have a name, then levels."""
    named = [one for one in drawing.series if one.name]
    inks = ["muted" if one.faint else INKS[place % len(INKS)] for place, one in enumerate(named)]
    entries = [Entry(one.name, ink) for one, ink in zip(named, inks, strict=True)]
    entries += [Entry(label, "bad", level=True) for _, label in drawing.levels if label]
    rows: list[list[Entry]] = [[]]
    used = 0.0
    for one in entries:
        if rows[-1] and used + one.wide > width - 20:
            rows.append([])
            used = 0.0
        rows[-1].append(one)
        used += one.wide
    return rows


def _legend(frame: Frame) -> list[str]:
    parts = []
    for row, entries in enumerate(frame.legend):
        x, y = 12.0, 14.0 + 18 * row
        for one in entries:
            mark = f'<circle cx="{at(x + 6)}" cy="{at(y - 4)}" r="4" style="fill:{colour(one.ink)}"/>'
            parts.append(line(x - 4, y - 4, x + 12, y - 4, one.ink, DASHES) if one.level else mark)
            parts.append(text(x + 16, y, one.name, fill="ink"))
            x += one.wide
    return parts


def _series(frame: Frame, series: Series, ink: str, *, tips: bool) -> list[str]:
    names = frame.drawing.x.names
    room = (frame.right - frame.left) / max(len(series.x), 1)
    radius = max(min(RADIUS, 0.4 * room), 0.8)
    path, parts, pen = "", [], "M"
    for x, y in zip(series.x, series.y, strict=True):
        px, py = frame.at_x(x), frame.at_y(y)
        known = drawable(y, frame.drawing.y)
        path += f"{pen}{at(px)} {at(py)}" if known else ""
        pen = "L" if known else "M"
        said = tip(f"{names[int(x)] if names else tick(x)}: {y:.3g}") if tips and not series.faint else ""
        if not known:
            parts.append(_off_scale(px, py, y, said))
        elif not series.faint:
            parts.append(f'<circle cx="{at(px)}" cy="{at(py)}" r="{at(radius)}">{said}</circle>')
    wide = 0.8 if series.faint else 1.6
    drawn = f'<path d="{path}" style="fill:none;stroke:{colour(ink)};stroke-width:{wide}"/>'
    points = [f'<g style="fill:{colour(ink)}">', *parts, "</g>"] if parts else []
    return [drawn if series.line and "L" in path else "", *points]


def _off_scale(x: float, y: float, value: float, said: str) -> str:
    """A mark at the edge: a cross for NaN and infinity, an open circle for what is below the scale."""
    if math.isfinite(value):
        ring = f"fill:{colour('paper')};stroke:{colour('muted')}"
        return f'<circle cx="{at(x)}" cy="{at(y)}" r="3" style="{ring}">{said}</circle>'
    cross = f"M{at(x - 4)} {at(y - 4)}l8 8m0-8l-8 8"
    return f'<path d="{cross}" style="stroke:{colour("bad")};stroke-width:2">{said}</path>'
