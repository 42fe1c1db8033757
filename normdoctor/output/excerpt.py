"""Source lines with the spans of a finding underlined: `^^^^` for its own, `----` for related ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normdoctor.facts import Location
from normdoctor.output.paths import shown
from normdoctor.output.style import Style
from normdoctor.sources import source_lines

#: Lines of a span beyond these are left out, and so is what lies far right.
MAX_LINES = 4
MAX_WIDTH = 160
TAB = "    "


@dataclass(frozen=True, slots=True)
class Mark:
    """A span to underline, with the word that stands beside it."""

    place: Location
    label: str
    primary: bool

    @property
    def last(self) -> int:
        """The last line of the span."""
        return max(self.place.line, self.place.end_line)


def excerpt(
    location: Location, related: Sequence[tuple[str, Location]], style: Style, look: str
) -> list[str]:
    """The lines from `-->` to the closing bar, for a finding at `location`."""
    marks = marks_of(location, related)
    files = dict.fromkeys(mark.place.file for mark in marks)
    gutter = max(2, *(len(str(mark.last)) for mark in marks))
    lines: list[str] = []
    for file in files:
        here = [mark for mark in marks if mark.place.file == file]
        arrow = "-->" if file == location.file else ":::"
        lines.append(f"{' ' * gutter}{style.paint(arrow, 'blue')} {style.clean(shown(here[0].place))}")
        body = _body(file, here, gutter, style, look)
        if body:
            bar = f"{' ' * gutter} {style.paint('|', 'blue')}"
            lines += [bar, *body, bar]
    return lines


@dataclass(frozen=True, slots=True)
class Line:
    """A source line to show, without its end, and the marks on it from left to right."""

    number: int
    raw: str
    marks: tuple[Mark, ...]


def marks_of(location: Location, related: Sequence[tuple[str, Location]]) -> list[Mark]:
    """The span of a finding, with the labels of related places that are the same, and the other places."""
    own = [label for label, place in related if place == location]
    marks = [Mark(location, ", ".join(own), True)]
    return marks + [Mark(place, label, False) for label, place in related if place != location]


def lines_of(file: str, marks: Sequence[Mark]) -> list[Line]:
    """The lines of a file on which marks stand; empty where the file cannot be read."""
    source = source_lines(file)
    wanted = sorted({number for mark in marks for number in _numbers(mark) if 1 <= number <= len(source)})
    ordered = sorted(marks, key=lambda mark: mark.place.column)
    return [
        Line(
            number,
            source[number - 1].rstrip("\r\n"),
            tuple(mark for mark in ordered if number in _numbers(mark)),
        )
        for number in wanted
    ]


def span(mark: Mark, line: Line) -> tuple[int, int]:
    """Where a mark starts and ends on a line, in characters from 0; the end may lie beyond the line."""
    place, raw = mark.place, line.raw
    start = place.column - 1 if line.number == place.line else len(raw) - len(raw.lstrip())
    end = len(raw.rstrip())
    if line.number == mark.last and place.end_column:
        end = place.end_column - 1
    return min(start, max(len(raw) - 1, 0)), end


def _body(file: str, marks: list[Mark], gutter: int, style: Style, look: str) -> list[str]:
    lines: list[str] = []
    bar = style.paint("|", "blue")
    before = 0
    for line in lines_of(file, marks):
        if before and line.number > before + 1:
            lines.append(style.paint("...", "blue"))
        before = line.number
        text = style.clean(expand(line.raw))
        lines.append(f"{style.paint(f'{line.number:>{gutter}}', 'blue')} {bar} {_cut(text)}".rstrip())
        lines += [f"{' ' * gutter} {bar} {_underline(mark, line, style, look)}" for mark in line.marks]
    return lines


def _numbers(mark: Mark) -> list[int]:
    """The lines to show of a span: all of a short one, the first two and the last of a long one."""
    numbers = list(range(mark.place.line, mark.last + 1))
    return numbers if len(numbers) <= MAX_LINES else [*numbers[:2], numbers[-1]]


def _underline(mark: Mark, line: Line, style: Style, look: str) -> str:
    start, end = span(mark, line)
    raw = line.raw
    before = len(style.clean(expand(raw[:start])))
    length = max(len(style.clean(expand(raw[:end]))) - before, 1)
    before, length = min(before, MAX_WIDTH), min(length, max(MAX_WIDTH - before, 1))
    label = f" {style.clean(mark.label)}" if mark.label and line.number == mark.last else ""
    painted = style.paint(
        ("^" if mark.primary else "-") * length + label, *(("bold", look) if mark.primary else ("blue",))
    )
    return f"{' ' * before}{painted}"


def expand(text: str) -> str:
    """Put blanks for tabs."""
    return text.replace("\t", TAB)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else text[:MAX_WIDTH] + " ..."
