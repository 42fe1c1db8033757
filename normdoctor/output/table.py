"""Tables that fit: the columns that can spare most are shortened until a row fits the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: What tabulate puts between two columns.
GAP = 2
#: No column is made narrower than this.
NARROWEST = 6


def table(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str],
    width: int,
    *,
    right: Sequence[str] = (),
    least: Mapping[str, int] | None = None,
) -> str:
    """Lay out rows under headers within `width` columns, where that can be done; empty columns are left out.

    Args:
        rows: The cells; each row is as long as `headers`.
        headers: The titles of the columns.
        width: The columns of the terminal.
        right: Titles of columns that are right-aligned, and never shortened.
        least: The width below which a column is shortened only if nothing else helps, by title.
    """
    from tabulate import tabulate  # not for the start of every command

    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    names = [headers[i] for i in kept]
    cells = [[row[i] for i in kept] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    for floors in ([(least or {}).get(name, NARROWEST) for name in names], [NARROWEST] * len(names)):
        fixed = [
            own if name in right else floor for own, floor, name in zip(widths, floors, names, strict=True)
        ]
        _fit(widths, fixed, width)
    shortened = [
        [shorten(text, widths[i], middle=i == 0) for i, text in enumerate(row)] for row in [names, *cells]
    ]
    # Headers go in as a row: tabulate would make every column two wider than its header.
    shortened.insert(1, ["-" * own for own in widths])
    align = ["right" if name in right else "left" for name in names]
    text = tabulate(shortened, tablefmt="plain", colalign=align, disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _fit(widths: list[int], floors: Sequence[int], width: int) -> None:
    """Narrow the columns that are furthest above their floors, until the row fits or all are there."""
    while sum(widths) + GAP * (len(widths) - 1) > width:
        spare = [own - floor for own, floor in zip(widths, floors, strict=True)]
        if max(spare) <= 0:
            return
        widths[spare.index(max(spare))] -= 1


def shorten(text: str, width: int, *, middle: bool = False) -> str:
    """Cut a text that is too long; a path loses its middle: `encoder..norm1`."""
    if len(text) <= width:
        return text
    tail = (width - 2) * 2 // 3 if middle else 0
    return f"{text[: width - 2 - tail]}..{text[len(text) - tail :]}"
