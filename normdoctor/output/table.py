"""Tables that fit: the columns that can spare most are shortened until a row fits the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Blanks between two columns.
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
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    names = [headers[i] for i in kept]
    cells = [[row[i] for i in kept] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    for floors in ([(least or {}).get(name, NARROWEST) for name in names], [NARROWEST] * len(names)):
        fixed = [
            own if name in right else floor for own, floor, name in zip(widths, floors, names, strict=True)
        ]
        _fit(widths, fixed, width)
    lines = [names, ["-" * own for own in widths], *cells]
    return "\n".join(
        (" " * GAP)
        .join(
            (str.rjust if name in right else str.ljust)(shorten(text, own, middle=i == 0), own)
            for i, (text, own, name) in enumerate(zip(line, widths, names, strict=True))
        )
        .rstrip()
        for line in lines
    )


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
