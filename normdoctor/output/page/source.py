"""Source lines of a finding, cut at the ends of its marks, with what is said about each below."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile

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
    lines = lines_of(file, marks)
    leads = [line.raw[: len(line.raw) - len(line.raw.lstrip())] for line in lines if line.raw.strip()]
    indent = sum(1 for _ in takewhile(lambda chars: len(set(chars)) == 1, zip(*leads, strict=False)))
    for line in lines:
        gap = bool(rows) and line.number > rows[-1].number + 1
        rows.append(Row(line.number, _pieces(line, indent), _notes(line, indent), gap))
    said = "" if rows else ", ".join(mark.label for mark in marks if mark.label)
    return Excerpt(shown(marks[0].place), tuple(rows), said)


def _pieces(line: Line, indent: int) -> tuple[Piece, ...]:
    """The parts of a line, without the indentation that all of them share."""
    raw = line.raw.rstrip()
    spans = [(*span(mark, line), "own" if mark.primary else "also") for mark in line.marks]
    end = min(len(raw), MAX_WIDTH)
    left = min(indent, end)
    cuts = sorted(
        {left, end, *(min(max(cut, left), end) for start, stop, _ in spans for cut in (start, stop))}
    )
    marked = [
        (start, stop, {mark for low, high, mark in spans if low <= start and stop <= high})
        for start, stop in pairwise(cuts)
    ]
    found = []
    for name, parts in groupby(marked, lambda one: "own" if "own" in one[2] else "also" if one[2] else ""):
        ends = [cut for start, stop, _ in parts for cut in (start, stop)]
        found.append(Piece(expand(raw[ends[0] : ends[-1]]), name))
    return (*found, Piece(" ...")) if len(raw) > end else tuple(found)


def _notes(line: Line, indent: int) -> tuple[tuple[str, Piece], ...]:
    return tuple(
        (
            " " * min(len(_STYLE.clean(expand(line.raw[indent : span(mark, line)[0]]))), MAX_WIDTH),
            Piece(mark.label, "own" if mark.primary else "also"),
        )
        for mark in line.marks
        if mark.label and line.number == mark.last
    )
