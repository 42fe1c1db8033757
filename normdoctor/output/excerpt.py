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
    own = [label for label, place in related if place == location]
    marks = [Mark(location, ", ".join(own), True)]
    marks += [Mark(place, label, False) for label, place in related if place != location]
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


def _body(file: str, marks: list[Mark], gutter: int, style: Style, look: str) -> list[str]:
    source = source_lines(file)
    wanted = sorted({number for mark in marks for number in _numbers(mark) if 1 <= number <= len(source)})
    lines: list[str] = []
    bar = style.paint("|", "blue")
    for position, number in enumerate(wanted):
        if position and number > wanted[position - 1] + 1:
            lines.append(style.paint("...", "blue"))
        raw = source[number - 1].rstrip("\r\n")
        text = style.clean(_expand(raw))
        lines.append(f"{style.paint(f'{number:>{gutter}}', 'blue')} {bar} {_cut(text)}".rstrip())
        for mark in sorted(marks, key=lambda mark: mark.place.column):
            if number in _numbers(mark):
                under = _underline(mark, number, raw, style, look)
                lines.append(f"{' ' * gutter} {bar} {under}")
    return lines


def _numbers(mark: Mark) -> list[int]:
    """The lines to show of a span: all of a short one, the first two and the last of a long one."""
    numbers = list(range(mark.place.line, mark.last + 1))
    return numbers if len(numbers) <= MAX_LINES else [*numbers[:2], numbers[-1]]


def _underline(mark: Mark, number: int, raw: str, style: Style, look: str) -> str:
    place = mark.place
    indent = len(raw) - len(raw.lstrip())
    start = place.column - 1 if number == place.line else indent
    end = len(raw.rstrip())
    if number == mark.last and place.end_column:
        end = place.end_column - 1
    start = min(start, max(len(raw) - 1, 0))
    before = len(style.clean(_expand(raw[:start])))
    length = max(len(style.clean(_expand(raw[:end]))) - before, 1)
    before, length = min(before, MAX_WIDTH), min(length, max(MAX_WIDTH - before, 1))
    label = f" {style.clean(mark.label)}" if mark.label and number == mark.last else ""
    painted = style.paint(
        ("^" if mark.primary else "-") * length + label, *(("bold", look) if mark.primary else ("blue",))
    )
    return f"{' ' * before}{painted}"


def _expand(text: str) -> str:
    return text.replace("\t", TAB)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else text[:MAX_WIDTH] + " ..."
