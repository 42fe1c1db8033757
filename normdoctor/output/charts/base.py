"""What a chart holds: the drawing as plain data, and the same numbers as a table of text. No torch."""

from __future__ import annotations

from typing import Literal

import msgspec

Scale = Literal["linear", "log"]


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One axis: what it stands for, its scale, and the names of the places 0, 1, ... where it has names."""

    label: str = ""
    scale: Scale = "linear"
    names: tuple[str, ...] = ()


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
    """One node of a network: lines of text, its place (`rank` from the top, `column` from the left).

    `chosen` marks what the chart is about.
    """

    text: tuple[str, ...]
    rank: int
    column: int
    role: str = "other"
    chosen: bool = False


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Boxes and the edges between them, by their places in `boxes`; data flows downwards."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One picture with its numbers.

    Args:
        kind: `signal`, `gradients`, `activity`, `running-stats`, `batch-noise`, `neighbourhood`,
            `conversion`.
        title: What is shown, in a few words.
        caption: How to read it, in plain text.
        headers: The names of the columns of the numbers.
        rows: The numbers as text, a tuple a row; what is drawn is in here.
        drawing: What to draw.
        target: The target that it is about.
        about: Which finding (its fingerprint), layer or conversion; empty for the whole model.
    """

    kind: str
    title: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drawing: Lines | Heat | Network
    target: str = ""
    about: str = ""


def figure(value: float) -> str:
    """A number as tables and labels show it: three significant digits."""
    return f"{value:.3g}"
