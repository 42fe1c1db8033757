"""Lines and points over depth or size."""

from __future__ import annotations

import math

from normdoctor.output.charts.base import Lines, Series
from normdoctor.output.charts.pen import SIZE, at, colour, length, line, sloped, text, tip
from normdoctor.output.charts.scales import Range, drawable, range_of, shortened, thinned, tick

#: Height of the plotted area, most labels along x, longest name there, and most marks with a tip.
HEIGHT = 190
LABELS = 12
NAME = 20
TIPS = 150
#: Colours of the series, in their order, and the shape of their points.
INKS = ("1", "2", "3", "4")


class Frame:
    """The plotted area: where a pair of values stands on paper."""

    def __init__(self, drawing: Lines, width: int) -> None:
        shown = [value for one in drawing.series for value in one.y]
        levels = [value for value, _ in drawing.levels]
        self.drawing, self.width = drawing, width
        self.y: Range = range_of([*shown, *levels], drawing.y.scale)
        places = [value for one in drawing.series for value in one.x]
        names = drawing.x.names
        self.x = (
            Range(low=-0.5, high=max(len(names), 1) - 0.5, scale="linear", ticks=())
            if names
            else range_of(places, drawing.x.scale, 10)
        )
        self.left = 14 + SIZE + max(length(tick(value)) for value in self.y.ticks)
        self.top = 14 + 18 * (1 + (len(drawing.series) - 1) // 3)
        self.right = width - 12.0
        self.bottom = self.top + HEIGHT

    def at_x(self, value: float) -> float:
        """A place between the left and the right edge."""
        return self.left + self.x.share(value) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """NaN and infinity stand at the top edge; on a logarithmic scale zero at the bottom."""
        if drawable(value, self.y.scale):
            return self.bottom - self.y.share(value) * HEIGHT
        return self.top if not math.isfinite(value) else self.bottom


def lines(drawing: Lines, width: int) -> tuple[str, int, int]:
    """The body of the drawing, its width and its height."""
    frame = Frame(drawing, width)
    below, height = _below(frame)
    parts = [*_grid(frame), *below, *_legend(frame)]
    tips = sum(len(one.x) for one in drawing.series) <= TIPS
    for place, series in enumerate(drawing.series):
        parts += _series(frame, series, INKS[place % len(INKS)], tips=tips)
    return "".join(parts), width, height


def _grid(frame: Frame) -> list[str]:
    parts = []
    for value in frame.y.ticks:
        y = frame.at_y(value)
        parts.append(line(frame.left, y, frame.right, y))
        parts.append(text(frame.left - 6, y + 4, tick(value), anchor="end"))
    middle = (frame.top + frame.bottom) / 2
    parts.append(text(SIZE, middle, frame.drawing.y.label, anchor="middle", turn=-90))
    for value, label in frame.drawing.levels:
        y = frame.at_y(value)
        parts.append(line(frame.left, y, frame.right, y, "bad", "5 3"))
        parts.append(text(frame.right, y - 4, label, anchor="end", fill="bad", size=11))
    return parts


def _below(frame: Frame) -> tuple[list[str], int]:
    """The labels along x, and the height of the whole."""
    names = frame.drawing.x.names
    y = frame.bottom + 16.0
    if not names:
        parts = [text(frame.at_x(v), y, tick(v), anchor="middle") for v in frame.x.ticks]
        y += 18
    else:
        chosen = thinned(len(names), LABELS)
        shown = {place: shortened(names[place], NAME) for place in chosen}
        parts = [
            text(frame.at_x(place) + 4, frame.bottom + 12, name, anchor="end", turn=-35, size=11)
            for place, name in shown.items()
        ]
        y += max((sloped(name, 11) for name in shown.values()), default=0.0) + 6
    label = text((frame.left + frame.right) / 2, y, frame.drawing.x.label, anchor="middle")
    return [*parts, label], math.ceil(y + 8)


def _legend(frame: Frame) -> list[str]:
    parts, x, y = [], frame.left, 14.0
    for place, series in enumerate(frame.drawing.series):
        wide = 22 + length(series.name) + 10
        if place and x + wide > frame.right:
            x, y = frame.left, y + 18
        ink = colour(INKS[place % len(INKS)])
        parts.append(f'<circle cx="{at(x + 6)}" cy="{at(y - 4)}" r="4" style="fill:{ink}"/>')
        parts.append(text(x + 16, y, series.name, fill="ink"))
        x += wide
    return parts


def _series(frame: Frame, series: Series, ink: str, *, tips: bool) -> list[str]:
    names, scale = frame.drawing.x.names, frame.drawing.y.scale
    path, parts, pen = "", [], "M"
    for x, y in zip(series.x, series.y, strict=True):
        px, py = frame.at_x(x), frame.at_y(y)
        known = drawable(y, scale)
        if known:
            path += f"{pen}{at(px)} {at(py)}"
        pen = "L" if known else "M"
        place = names[int(x)] if names else tick(x)
        said = tip(f"{place}: {y:.3g}") if tips else ""
        if known:
            parts.append(f'<circle cx="{at(px)}" cy="{at(py)}" r="2.6">{said}</circle>')
        else:
            cross = f"M{at(px - 4)} {at(py - 4)}l8 8m0-8l-8 8"
            parts.append(f'<path d="{cross}" style="stroke:{colour("bad")};stroke-width:2">{said}</path>')
    drawn = f'<path d="{path}" style="fill:none;stroke:{colour(ink)};stroke-width:1.6"/>'
    return [drawn if series.line and "L" in path else "", f'<g style="fill:{colour(ink)}">', *parts, "</g>"]
