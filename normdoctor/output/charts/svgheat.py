"""Cells over layers: the darker, the larger the share."""

from __future__ import annotations

import math

from normdoctor.output.charts.base import Heat, percent
from normdoctor.output.charts.pen import at, colour, length, names_below, text, tip
from normdoctor.output.charts.scales import thinned

#: Height of a row, most labels along x, and most cells with a tip.
ROW = 20
LABELS = 12
TIPS = 700
#: A share that is not zero is never fainter than this.
FAINTEST = 0.12
#: The shares of the key, and how wide its cells are.
KEY = (0.0, 0.25, 0.5, 0.75, 1.0)
KEY_WIDTH = 22


def heat(drawing: Heat, width: int) -> tuple[str, int, int]:
    """The body of the drawing, its width and its height."""
    left = 14 + max((length(name) for name in drawing.rows), default=0.0)
    top, right = 30.0, width - 12.0
    step = (right - left) / max(len(drawing.columns), 1)
    bottom = top + ROW * len(drawing.rows)
    parts = [_key(left, drawing), _paper(left, top, right, bottom)]
    tips = len(drawing.rows) * len(drawing.columns) <= TIPS
    for place, (name, cells) in enumerate(zip(drawing.rows, drawing.cells, strict=True)):
        y = top + ROW * place
        parts.append(text(left - 6, y + ROW * 0.7, name, anchor="end"))
        ink = "bad" if name in drawing.alarming else "1"
        parts.append(f'<g style="fill:{colour(ink)}">')
        for column, share in enumerate(cells):
            said = tip(f"{drawing.columns[column]}, {name}: {percent(share)}") if tips else ""
            parts.append(_cell(left + step * column, y, step, share, said))
        parts.append("</g>")
    chosen = thinned(len(drawing.columns), LABELS)
    below, deep = names_below([(left + step * (c + 0.5), drawing.columns[c]) for c in chosen], bottom)
    parts += below
    y = bottom + 24 + deep
    parts.append(text((left + right) / 2, y, drawing.x, anchor="middle"))
    return "".join(parts), width, math.ceil(y + 8)


def _paper(left: float, top: float, right: float, bottom: float) -> str:
    look = f"fill:{colour('box')};stroke:{colour('grid')}"
    size = f'width="{at(right - left)}" height="{at(bottom - top)}"'
    return f'<rect x="{at(left)}" y="{at(top)}" {size} style="{look}"/>'


def _cell(x: float, y: float, step: float, share: float, said: str) -> str:
    """One cell; nothing for a share of zero or one that is not known, unless it says something."""
    if not share > 0:
        if not said or math.isnan(share):
            return ""
        share = 0.0
    dark = FAINTEST + (1 - FAINTEST) * min(share, 1.0) if share > 0 else 0.0
    gap = min(1.0, 0.1 * step)
    size = f'width="{step - gap:.2f}" height="{ROW - 1}"'
    return f'<rect x="{x:.2f}" y="{at(y)}" {size} fill-opacity="{dark:.2f}">{said}</rect>'


def _key(left: float, drawing: Heat) -> str:
    """What the shades mean; in both colours where both are used."""
    parts, x = [text(8, 16, "share of units", fill="ink")], max(left, 18 + length("share of units"))
    inks = ["1"] if len(drawing.alarming) < len(drawing.rows) else []
    inks += ["bad"] if set(drawing.alarming) & set(drawing.rows) else []
    for share in KEY:
        look = f"stroke:{colour('grid')}"
        tall = 14 / max(len(inks), 1)
        for place, ink in enumerate(inks):
            dark = FAINTEST + (1 - FAINTEST) * share if share else 0.0
            parts.append(
                f'<rect x="{at(x)}" y="{at(5 + tall * place)}" width="{KEY_WIDTH}" height="{at(tall)}" '
                f'fill-opacity="{dark:.2f}" style="fill:{colour(ink)};{look}"/>'
            )
        parts.append(text(x + KEY_WIDTH + 3, 16, f"{share:.0%}", size=11))
        x += KEY_WIDTH + 36
    return "".join(parts)
