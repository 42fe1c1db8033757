"""The words of SVG: numbers, text that is made harmless, and colours with a fallback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from normdoctor.output.charts.scales import shortened
from normdoctor.output.style import Style

#: Name of a colour to what it is on light and on dark paper. A page sets the custom properties
#: `--nd-NAME`; where nobody does, the light one is used.
COLORS = {
    "ink": ("#1c2430", "#e6e9ee"),
    "muted": ("#5b6675", "#a3adbb"),
    "grid": ("#d9dee5", "#39424f"),
    "paper": ("#ffffff", "#14181f"),
    "box": ("#f1f4f8", "#222a35"),
    "1": ("#1f66b8", "#6cb0ff"),
    "2": ("#b45309", "#f0a653"),
    "3": ("#1b7f5c", "#58c79c"),
    "4": ("#7b45b8", "#bd96f2"),
    "bad": ("#b42318", "#ff8f85"),
}
SIZE, SMALL = 12, 11
#: How far names below an axis are turned, in degrees.
SLOPE = 35.0
#: The longest name there, in characters.
LONGEST = 22
#: The mean width of a character of this font, in its size: text is not measured, only bounded.
WIDE = 0.56

_STYLE = Style()


def colour(name: str) -> str:
    """The value of a CSS property for a colour."""
    return f"var(--nd-{name},{COLORS[name][0]})"


def properties(*, dark: bool = False) -> str:
    """The declarations of all custom properties, for a rule of a style sheet."""
    return "".join(f"--nd-{name}:{pair[dark]};" for name, pair in COLORS.items())


def at(value: float) -> str:
    """A coordinate: one decimal, the same on every machine."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def safe(text: str) -> str:
    """Foreign text as the content of an element or attribute."""
    return escape(_STYLE.clean(text).replace("\t", " "))


def length(text: str, size: float = SIZE) -> float:
    """About how wide a text is."""
    return len(text) * size * WIDE


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    fill: str = "muted",
    size: float = SIZE,
    turn: float = 0.0,
) -> str:
    """A line of text that starts, is centred or ends (`anchor`) at a place."""
    turned = f' transform="rotate({at(turn)} {at(x)} {at(y)})"' if turn else ""
    ends = "" if anchor == "start" else f' text-anchor="{anchor}"'
    sized = "" if size == SIZE else f' font-size="{at(size)}"'
    return (
        f'<text x="{at(x)}" y="{at(y)}"{ends}{sized}{turned} style="fill:{colour(fill)}">'
        f"{safe(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = "grid", dash: str = "") -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{at(x1)}" y1="{at(y1)}" x2="{at(x2)}" y2="{at(y2)}"{dashed} '
        f'style="stroke:{colour(stroke)}"/>'
    )


def tip(content: str) -> str:
    """What a browser shows over an element, and a screen reader says."""
    return f"<title>{safe(content)}</title>"


def names_below(names: Sequence[tuple[float, str]], y: float) -> tuple[list[str], float]:
    """Names below an x axis at `y`, turned so that many stand side by side, and how far down they reach.

    A name begins at its place and runs to the lower left: near the left edge there is less room.
    """
    parts, deep = [], 0.0
    slope = math.radians(SLOPE)
    for x, name in names:
        room = (x + 2) / math.cos(slope)
        shown = shortened(name, max(min(LONGEST, int(room / (SMALL * WIDE))), 5))
        deep = max(deep, length(shown, SMALL) * math.sin(slope))
        parts.append(text(x + 4, y + 12, shown, anchor="end", turn=-SLOPE, size=SMALL))
    return parts, deep
