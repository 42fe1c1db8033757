"""Source lines of a finding, cut at the ends of its marks, with what is said about each below."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from normdoctor.findings import Finding
from normdoctor.output.excerpt import MAX_WIDTH, Line, Mark, expand, lines_of, marks_of, span
from normdoctor.output.paths import shown
from normdoctor.output.style import Style

_STYLE = Style()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line; `mark` is `own` in the span of the finding, `also` in a related one, or empty."""

    text: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of source. `notes` are set in by blanks; `gap` says that lines before it are left out."""

    number: int
    pieces: tuple[Piece, ...]
    notes: tuple[tuple[str, Piece], ...] = ()
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The lines of one file; `label` is what is said about a file that cannot be read."""

    place: str
    rows: tuple[Row, ...]
    label: str = ""


def excerpts(finding: Finding) -> tuple[Excerpt, ...]:
    """What the format `full` shows of the source: the finding's file, then those of related places."""
    if finding.location is None:
        return ()
    marks = marks_of(finding.location, finding.related)
    files = dict.fromkeys(mark.place.file for mark in marks)
    return tuple(_excerpt(file, [mark for mark in marks if mark.place.file == file]) for file in files)


def _excerpt(file: str, marks: list[Mark]) -> Excerpt:
    rows: list[Row] = []
    for line in lines_of(file, marks):
        gap = bool(rows) and line.number > rows[-1].number + 1
        rows.append(Row(line.number, _pieces(line), _notes(line), gap))
    said = "" if rows else ", ".join(mark.label for mark in marks if mark.label)
    return Excerpt(shown(marks[0].place), tuple(rows), said)


def _pieces(line: Line) -> tuple[Piece, ...]:
    raw = line.raw.rstrip()
    spans = [(*span(mark, line), "own" if mark.primary else "also") for mark in line.marks]
    end = min(len(raw), MAX_WIDTH)
    cuts = sorted({0, end, *(min(max(cut, 0), end) for start, stop, _ in spans for cut in (start, stop))})
    found = []
    for start, stop in pairwise(cuts):
        around = [mark for low, high, mark in spans if low <= start and stop <= high]
        found.append(Piece(expand(raw[start:stop]), "own" if "own" in around else "also" if around else ""))
    return (*found, Piece(" ...")) if len(raw) > end else tuple(found)


def _notes(line: Line) -> tuple[tuple[str, Piece], ...]:
    return tuple(
        (
            " " * min(len(_STYLE.clean(expand(line.raw[: span(mark, line)[0]]))), MAX_WIDTH),
            Piece(mark.label, "own" if mark.primary else "also"),
        )
        for mark in line.marks
        if mark.label and line.number == mark.last
    )
