"""What a chart holds: the drawing as plain data, and the same numbers as a table of text. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")
Scale = Literal["linear", "log"]
#: How many places along the depth of a model are drawn: more cannot be told apart.
MOST = 400


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One axis: what it stands for, its scale, and the names of the places 0, 1, ... where it has names.

    `ticks` are the values that are labelled, where they are not left to the drawing; on a logarithmic scale
    zero and what is below `floor` stands at the lower edge.
    """

    label: str = ""
    scale: Scale = "linear"
    names: tuple[str, ...] = ()
    ticks: tuple[float, ...] = ()
    floor: float = 0.0


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line or cloud of points; `y` may hold NaN and infinity, which are marked at the edge.

    `faint` is drawn thin and first: one of many.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    line: bool = True
    faint: bool = False


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Series over a common pair of axes, and horizontal lines at values worth comparing with."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[float, str], ...] = ()


class Heat(msgspec.Struct, frozen=True, kw_only=True):
    """A cell for each row and column, from 0 to 1; the columns are places along the depth of a model.

    `cells` holds a tuple a row; `alarming` names the rows in which a dark cell is a bad sign.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[float, ...], ...]
    alarming: tuple[str, ...] = ()
    x: str = ""


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a network: lines of text, and its place.

    Args:
        text: What stands in it, a line each.
        rank: The row in which it stands, from the top.
        centre: Its centre, as a share of the width from the left.
        width: Its width, as a share of the whole.
        role: As in `normdoctor.facts.Node`.
        chosen: It is what the chart is about.
    """

    text: tuple[str, ...]
    rank: int
    centre: float
    width: float
    role: str = "other"
    chosen: bool = False


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Data that flows from a box to a lower one, by their places; `via` are centres in the rows between."""

    source: int
    target: int
    via: tuple[float, ...] = ()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Boxes and the edges between them; data flows downwards."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One picture with its numbers.

    Args:
        kind: `signal`, `gradients`, `activity`, `running-mean`, `running-var`, `batch-noise`,
            `neighbourhood` or `conversion`.
        title: What is shown, in a few words.
        caption: How to read it, in plain text.
        headers: The names of the columns of the numbers.
        rows: The numbers as text, a tuple a row; what is drawn is in here.
        drawing: What to draw.
        target: The target that it is about.
        about: Which finding (its fingerprint), layer or conversion; empty for the whole model.
        place: The module that a chart about a finding shows: findings alike share a fingerprint.
    """

    kind: str
    title: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drawing: Lines | Heat | Network
    target: str = ""
    about: str = ""
    place: str = ""


def figure(value: float | None) -> str:
    """A number as tables and labels show it: three significant digits, and nothing for None."""
    return "" if value is None else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share as tables show it: `12.5 %`, and nothing for None."""
    return "" if share is None else f"{100 * share:.3g} %"


def fewer(items: Sequence[T], value: Callable[[T], float]) -> list[T]:
    """At most `MOST` of the items, in their order: of each stretch those with the least and largest value.

    What is not finite counts as largest.
    """
    if len(items) <= MOST:
        return list(items)
    kept: list[T] = []
    stretches = MOST // 2
    for place in range(stretches):
        first, end = place * len(items) // stretches, (place + 1) * len(items) // stretches
        values = [value(item) for item in items[first:end]]
        ranked = sorted(range(len(values)), key=lambda i: (not math.isfinite(values[i]), values[i], i))
        kept += [items[first + i] for i in sorted({ranked[0], ranked[-1]})]
    return kept


def of_all(shown: int, every: int) -> str:
    """The end of a caption that says how much of a large model is shown; empty where it is all."""
    if shown == every:
        return ""
    return f" Shown are {shown} of {every} places: of each stretch the one with the least and the largest."
