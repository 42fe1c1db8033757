"""A piece of a graph: boxes with the data flowing downwards."""

from __future__ import annotations

from normdoctor.output.charts.base import Box, Edge, Network
from normdoctor.output.charts.pen import SMALL, WIDE, at, colour, text, tip
from normdoctor.output.charts.scales import shortened

#: Height of a line of text and of the space between two ranks, the margin, and the widest box.
LINE, GAP, EDGE = 15, 30, 8
WIDEST = 190
#: Role of a node to the colour of its border.
INKS = {"norm": "1", "activation": "2", "softmax": "2", "linear": "3", "attention": "3", "loss": "bad"}


def network(drawing: Network, width: int) -> tuple[str, int, int]:
    """The body of the drawing, its width and its height."""
    tall = 10 + LINE * max((len(box.text) for box in drawing.boxes), default=1)
    ranks = 1 + max((box.rank for box in drawing.boxes), default=0)
    parts = [_edge(drawing, edge, width, tall) for edge in drawing.edges]
    parts += [_box(box, width, tall) for box in drawing.boxes]
    return "".join(parts), width, 2 * EDGE + ranks * tall + (ranks - 1) * GAP


def _top(rank: int, tall: float) -> float:
    return EDGE + rank * (tall + GAP)


def _edge(drawing: Network, edge: Edge, width: int, tall: float) -> str:
    """A curve from the lower border of a box to the upper one of another, past the boxes between."""
    source, target = drawing.boxes[edge.source], drawing.boxes[edge.target]
    x, y = source.centre * width, _top(source.rank, tall) + tall
    path = f"M{at(x)} {at(y)}"
    for step, centre in enumerate((*edge.via, target.centre)):
        below = _top(source.rank + step + 1, tall)
        middle = (y + below) / 2
        nx = centre * width
        path += f"C{at(x)} {at(middle)} {at(nx)} {at(middle)} {at(nx)} {at(below)}"
        x, y = nx, below
        if step < len(edge.via):
            y = below + tall
            path += f"L{at(x)} {at(y)}"
    path += "m-4 -6l4 6l4 -6"
    return f'<path d="{path}" style="fill:none;stroke:{colour("muted")};stroke-width:1.2"/>'


def _box(box: Box, width: int, tall: float) -> str:
    wide = min(box.width * width - 8, WIDEST)
    x, y = box.centre * width - wide / 2, _top(box.rank, tall)
    ink = "bad" if box.chosen else INKS.get(box.role, "muted")
    look = f"fill:{colour('box')};stroke:{colour(ink)};stroke-width:{3 if box.chosen else 1.2}"
    size = f'width="{at(wide)}" height="{at(tall)}" rx="5"'
    parts = [f'<g><rect x="{at(x)}" y="{at(y)}" {size} style="{look}"/>', tip(", ".join(box.text))]
    most = int((wide - 10) / (SMALL * WIDE))
    first = y + (tall - LINE * len(box.text)) / 2 + 11
    for row, content in enumerate(box.text):
        shown = shortened(content, max(most, 5))
        centre, below = box.centre * width, first + LINE * row
        fill = "muted" if row else "ink"
        parts.append(text(centre, below, shown, anchor="middle", fill=fill, size=SMALL))
    return "".join([*parts, "</g>"])
