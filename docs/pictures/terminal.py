"""Draw what a command of ours really prints in a terminal, colours included, as an SVG.

python docs/pictures/terminal.py     # from the root of the checkout; writes docs/_static/terminal.svg

The picture in the README is this file's output; a test draws it again and compares.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from click.testing import CliRunner

from normdoctor.cli import main

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "_static" / "terminal.svg"
COMMAND = "normdoctor check examples/faulty_net.py"
#: Longer lines go on below.
COLUMNS = 106
SIZE, LEADING, ADVANCE, MARGIN, BAR = 13, 18, 7.83, 18, 34
BACKGROUND, PLAIN = "#1b1f27", "#d6dae2"
COLORS = {
    "31": "#f2777a",
    "32": "#8fc77c",
    "33": "#e5b567",
    "34": "#7aa6da",
    "36": "#6cc4c4",
}
DIM = "#8b93a3"
CODES = re.compile(r"\x1b\[([0-9;]*)m")
#: How long a run took is another number each time, and the rules beside it are as much shorter or longer.
SECONDS = re.compile(r" in [0-9.]+s")
RULE = re.compile("={10,}")


@dataclass(frozen=True)
class Piece:
    """Characters that look alike."""

    text: str
    color: str = PLAIN
    bold: bool = False


def printed() -> str:
    """What `COMMAND` prints on a terminal with colours; run from the root of the checkout."""
    environ = {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "NO_COLOR": ""}
    result = CliRunner().invoke(main, COMMAND.split()[1:], env=environ, color=True)
    return RULE.sub("=" * 30, SECONDS.sub("", result.output))


def pieces(line: str) -> list[Piece]:
    """A line with escape codes, as characters and their looks."""
    found, color, bold = [], PLAIN, False
    for number, part in enumerate(CODES.split(line)):
        if number % 2 == 0:
            found += [Piece(part, color, bold)] if part else []
            continue
        for code in part.split(";"):
            if code in ("", "0"):
                color, bold = PLAIN, False
            elif code == "1":
                bold = True
            else:
                color = DIM if code == "2" else COLORS[code]
    return found


def wrapped(line: list[Piece]) -> list[list[Piece]]:
    """A line cut at `COLUMNS`, at a space where there is one."""
    text = "".join(piece.text for piece in line)
    if len(text) <= COLUMNS:
        return [line]
    at = text.rfind(" ", COLUMNS // 2, COLUMNS)
    at = COLUMNS if at < 0 else at + 1
    head: list[Piece] = []
    rest: list[Piece] = []
    for piece in line:
        before, after = piece.text[: max(at, 0)], piece.text[max(at, 0) :]
        head += [Piece(before, piece.color, piece.bold)] if before else []
        rest += [Piece(after, piece.color, piece.bold)] if after else []
        at -= len(piece.text)
    return [head, *wrapped(rest)]


def drawn(text: str) -> str:
    """The whole picture: a prompt with the command, and below it what was printed."""
    prompt = [Piece("$ ", COLORS["32"], True), Piece(COMMAND, PLAIN, True)]
    lines = [prompt, *(row for line in text.rstrip().splitlines() for row in wrapped(pieces(line)))]
    width = round(2 * MARGIN + COLUMNS * ADVANCE)
    height = BAR + LEADING * len(lines) + MARGIN
    rows = [_row(line, BAR + LEADING * (number + 0.75)) for number, line in enumerate(lines) if line]
    buttons = [
        f'<circle cx="{MARGIN + 18 * n}" cy="17" r="5.5" fill="{color}"/>'
        for n, color in enumerate(("#f2777a", "#e5b567", "#8fc77c"))
    ]
    font = f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{SIZE}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" {font}>',
            f"<title>What `{escape(COMMAND)}` prints</title>",
            f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>',
            *buttons,
            f'<g fill="{PLAIN}" xml:space="preserve" style="white-space: pre">',
            *rows,
            "</g>",
            "</svg>\n",
        ]
    )


def _row(line: list[Piece], y: float) -> str:
    """One line; each piece is stretched to its columns, so that marks stand below what they mark."""
    column = 0
    parts = []
    for piece in line:
        looks = "" if piece.color == PLAIN else f' fill="{piece.color}"'
        looks += ' font-weight="bold"' if piece.bold else ""
        shown = piece.text.strip(" ")
        start = column + len(piece.text) - len(piece.text.lstrip(" "))
        place = f'x="{MARGIN + start * ADVANCE:.1f}" textLength="{len(shown) * ADVANCE:.1f}"'
        if shown:
            parts.append(f"<tspan {place}{looks}>{escape(shown, quote=False)}</tspan>")
        column += len(piece.text)
    return f'<text y="{y:.1f}">{"".join(parts)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(drawn(printed()), encoding="utf-8")
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")
