"""Charts with matplotlib, from the same data as the SVG: for notebooks and papers."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from normdoctor.errors import UsageError, kind_of, near
from normdoctor.output.charts import Chart, charts
from normdoctor.output.charts.base import Heat, Lines, Network, Series
from normdoctor.output.charts.pen import COLORS
from normdoctor.output.charts.scales import drawable, range_of, shortened, thinned
from normdoctor.output.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from normdoctor.report import Report

#: Kind to what it needs, for the error that says why a report has none.
KINDS = {
    "signal": "check(..., data=...) or a watched training",
    "gradients": "a watched training",
    "activity": "check(..., data=...) or a watched training, of a model with activations",
    "running-mean": "check(..., data=...) or a watched training, of a model with BatchNorm",
    "running-var": "check(..., data=...) or a watched training, of a model with BatchNorm",
    "batch-noise": "check(..., data=...) or a watched training, of a model with BatchNorm",
    "neighbourhood": "a finding in a model whose forward could be recorded",
}
INKS = ("1", "2", "3", "4")
#: Most names along an axis, and the longest, in characters.
LABELS, LONGEST = 16, 28
_STYLE = Style()


def plot(
    report: Report, kind: str, ax: Axes | None = None, *, target: str | None = None, about: str | None = None
) -> Axes:
    """Draw a chart of a report; see `Report.plot`."""
    if ax is not None and not callable(getattr(ax, "set_yscale", None)):
        hint = "For example figure, ax = matplotlib.pyplot.subplots()."
        raise UsageError(f"ax is {kind_of(ax)}: expected axes of matplotlib", hint=hint)
    return draw(chosen(report, kind, target=target, about=about), ax)


def chosen(report: Report, kind: str, *, target: str | None = None, about: str | None = None) -> Chart:
    """The first chart of a kind, of one target and about one finding where that is asked for."""
    if not isinstance(kind, str) or kind not in KINDS:
        known = "Kinds are: " + ", ".join(KINDS) + "."
        hint = near(str(kind), list(KINDS))
        raise UsageError(f"there is no chart {kind!r}", hint=f"{hint} {known}" if hint else known)
    every = charts(report)
    names = [one.name for one in report.targets]
    if target is not None and target not in names:
        hint = near(str(target), names) or f"Targets are: {', '.join(names)}."
        raise UsageError(f"the report has no target {target!r}", hint=hint)
    of_target = [one for one in every if target in (None, one.target)]
    codes = {finding.fingerprint: finding.code for finding in report.findings}
    found = [
        one
        for one in of_target
        if one.kind == kind and about in (None, one.about, codes.get(one.about, one.about))
    ]
    if found:
        return found[0]
    held = list(dict.fromkeys(one.kind for one in of_target))
    has = f"It has: {', '.join(held)}." if held else "It has no charts."
    what = f"the chart {kind!r}" + (f" about {about!r}" if about is not None else "")
    raise UsageError(f"this report has no figures for {what}, which needs {KINDS[kind]}", hint=has)


def draw(chart: Chart, ax: Axes | None = None) -> Axes:
    """Draw a chart into axes, or into those of a new figure that is not shown."""
    if ax is None:
        ax = _new_axes(chart)
    _body(chart.drawing, ax)
    ax.set_title(_text(chart.title))
    return ax


def _new_axes(chart: Chart) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError(
            "plot needs matplotlib, which cannot be imported: " + str(error),
            hint="Install it with: pip install 'normdoctor[plot]'",
        ) from error
    drawing = chart.drawing
    ranks = 1 + max(box.rank for box in drawing.boxes) if isinstance(drawing, Network) else 0
    size = (7.0, 1.0 + 0.9 * ranks if ranks else 4.2)
    ax: Axes = pyplot.subplots(figsize=size, layout="constrained")[1]
    return ax


@singledispatch
def _body(drawing: object, ax: Axes) -> None:
    raise TypeError(f"there is no drawing of {type(drawing).__name__}")


@_body.register(Lines)
def _(drawing: Lines, ax: Axes) -> None:
    names, ticks = drawing.x.names, drawing.x.ticks
    shown = [value for one in drawing.series for value in one.y]
    levels = [value for value, _ in drawing.levels]
    edges = range_of([*shown, *levels], drawing.y)
    ax.set_yscale(drawing.y.scale)
    ax.set_ylim(edges.low, edges.high)
    inks = (name for _ in drawing.series for name in INKS)
    for one in drawing.series:
        ink = "muted" if one.faint else next(inks)
        _series(one, drawing, (edges.low, edges.high), ax, COLORS[ink][0])
    for value, label in drawing.levels:
        ax.axhline(value, color=COLORS["bad"][0], linestyle="--", linewidth=1, label=_text(label) or None)
    if names:
        _name_places(names, ax)
    else:
        ax.set_xscale(drawing.x.scale)
    if ticks:
        ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
        ax.minorticks_off()
    ax.set_xlabel(_text(drawing.x.label))
    ax.set_ylabel(_text(drawing.y.label))
    ax.grid(visible=True, axis="y", color=COLORS["grid"][0], linewidth=0.6)
    ax.set_axisbelow(True)
    if sum(bool(one.name) for one in drawing.series) + len(levels) > 1:
        ax.legend(fontsize="small")


def _series(one: Series, drawing: Lines, edges: tuple[float, float], ax: Axes, color: str) -> None:
    """A line with its points; what is off the scale is marked at the edge, as in the SVG."""
    known = [drawable(value, drawing.y) for value in one.y]
    y = [value if held else math.nan for value, held in zip(one.y, known, strict=True)]
    look: dict[str, Any] = {"color": color, "label": _text(one.name) or None}
    if one.faint:
        ax.plot(one.x, y, linewidth=0.6, **look)
    else:
        ax.plot(one.x, y, linestyle="-" if one.line else "", marker="o", markersize=3, linewidth=1.4, **look)
    off = [(x, value) for x, value, held in zip(one.x, one.y, known, strict=True) if not held]
    lost = [x for x, value in off if not math.isfinite(value)]
    below = [x for x, value in off if math.isfinite(value)]
    edge: dict[str, Any] = {"linestyle": "", "clip_on": False}
    if lost:
        ax.plot(lost, [edges[1]] * len(lost), marker="x", color=COLORS["bad"][0], **edge)
    if below:
        ax.plot(below, [edges[0]] * len(below), marker="o", markerfacecolor="none", color=color, **edge)


@_body.register(Heat)
def _(drawing: Heat, ax: Axes) -> None:
    for sign, alarming in (("Blues", False), ("Reds", True)):
        cells = [
            [share if (name in drawing.alarming) == alarming else math.nan for share in row]
            for name, row in zip(drawing.rows, drawing.cells, strict=True)
        ]
        if any(not math.isnan(share) for row in cells for share in row):
            image = ax.imshow(cells, cmap=sign, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
            if not alarming:
                ax.figure.colorbar(image, ax=ax, label="share of units")
    ax.set_yticks(range(len(drawing.rows)), drawing.rows)
    _name_places(drawing.columns, ax)
    ax.set_xlabel(_text(drawing.x))


@_body.register(Network)
def _(drawing: Network, ax: Axes) -> None:
    ax.set_axis_off()
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(-0.5 - max((box.rank for box in drawing.boxes), default=0), 0.5)
    for edge in drawing.edges:
        source, end = drawing.boxes[edge.source], drawing.boxes[edge.target]
        xs = [source.centre, *edge.via, end.centre]
        between = (-source.rank - 1.0 - step for step in range(len(edge.via)))
        ys = [-source.rank - 0.3, *between, 0.3 - end.rank]
        ax.plot(xs[:-1], ys[:-1], color=COLORS["muted"][0], linewidth=1)
        arrow = {"arrowstyle": "->", "color": COLORS["muted"][0]}
        ax.annotate("", (xs[-1], ys[-1]), (xs[-2], ys[-2]), arrowprops=arrow)
    for box in drawing.boxes:
        look = {
            "boxstyle": "round,pad=0.4",
            "facecolor": COLORS["box"][0],
            "edgecolor": COLORS["bad" if box.chosen else "muted"][0],
            "linewidth": 2 if box.chosen else 1,
        }
        words = "\n".join(shortened(_text(line), LONGEST) for line in box.text)
        ax.text(box.centre, -box.rank, words, ha="center", va="center", fontsize="x-small", bbox=look)


def _name_places(names: tuple[str, ...], ax: Axes) -> None:
    places = thinned(len(names), LABELS)
    labels = [shortened(_text(names[place]), LONGEST) for place in places]
    ax.set_xticks(places, labels, rotation=35, ha="right", rotation_mode="anchor", fontsize="small")


def _text(words: str) -> str:
    """Foreign text without controls, and without the signs that begin a formula."""
    return _STYLE.clean(words).replace("$", r"\$")
