"""Tables that fit: the widest columns are shortened until a row fits the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

#: Between two columns.
GAP = 2
#: No column is made narrower than this.
NARROWEST = 8


def table(
    rows: Sequence[Sequence[str]], headers: Sequence[str], width: int, right: Sequence[str] = ()
) -> str:
    """Lay out rows under headers within `width` columns; those named in `right` are right-aligned."""
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    names = [headers[i] for i in kept]
    cells = [[row[i] for i in kept] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        widest = max(range(len(widths)), key=lambda i: (names[i] not in right, widths[i]))
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    cells = [[shorten(text, widths[i]) for i, text in enumerate(row)] for row in cells]
    align = ["right" if name in right else "left" for name in names]
    return tabulate(cells, names, tablefmt="simple", colalign=align, disable_numparse=True)


def shorten(text: str, width: int) -> str:
    """Take out the middle of a text that is too long: `encoder..norm1`."""
    if len(text) <= width:
        return text
    tail = (width - 2) * 2 // 3
    return f"{text[: width - 2 - tail]}..{text[len(text) - tail :]}"
