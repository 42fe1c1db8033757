"""Findings that the user has silenced: by a comment, a file's glob or a module's glob.

`# normdoctor: ignore[ND101] -- reason` at the end of a line silences findings at that line; on a
line of its own, at the next statement; `file-ignore[...]`, in the whole file. `# noqa: ND101` works
as the first form does.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from normdoctor.errors import ConfigError, NormDoctorError
from normdoctor.facts import Location
from normdoctor.findings import Finding
from normdoctor.selection import parse_selector, split_selectors
from normdoctor.sources import source_lines

OWN = re.compile(
    r"#\s*normdoctor:\s*(?P<verb>(?:file-)?ignore)\b\s*(?:\[(?P<codes>[^\]]*)\])?\s*(?:--\s*(?P<reason>.*))?"
)
NOQA = re.compile(r"#\s*noqa:(?P<codes>\s*[A-Za-z]+[0-9]+(?:[\s,]+[A-Za-z]+[0-9]+)*)", re.IGNORECASE)
#: Tokens that stand between statements.
LAYOUT = frozenset({tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.ENDMARKER})


class Suppressed(msgspec.Struct, frozen=True, kw_only=True):
    """A silenced finding: `by` names the comment or the option, `reason` is the user's own text."""

    finding: Finding
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """One suppression comment: the lines that it covers (none: the whole file) and what it names.

    `named` maps each selector, as it is written, to the codes that it stands for.
    """

    place: Location
    verb: str
    lines: range | None
    named: Mapping[str, frozenset[str]]
    reason: str = ""

    @property
    def by(self) -> str:
        """Its address for reports: `model.py:9`."""
        return f"{Path(self.place.file).name}:{self.place.line}"

    def covers(self, place: Location) -> bool:
        """Does a span lie at its lines?"""
        last = max(place.end_line, place.line)
        return self.lines is None or (self.lines.start <= last and place.line < self.lines.stop)

    def names(self, code: str) -> bool:
        """Does it name this rule?"""
        return any(code in codes for codes in self.named.values())


@dataclass(slots=True)
class Suppressions:
    """Answers whether a finding is silenced; every source file is read at most once."""

    per_file: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    per_module: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = field(default_factory=Path)
    heed_comments: bool = True
    #: File, line and code of the comments that silenced something.
    used: set[tuple[str, int, str]] = field(default_factory=set)
    _files: dict[str, tuple[Comment, ...]] = field(default_factory=dict)

    def match(self, finding: Finding) -> Suppressed | None:
        """The reason why a finding (of one site) is silenced; None when it stands."""
        found = None
        for place in places(finding) if self.heed_comments else ():
            for comment in self.comments(place.file):
                if comment.covers(place) and comment.names(finding.code):
                    self.used.add((place.file, comment.place.line, finding.code))
                    found = found or Suppressed(finding=finding, by=comment.by, reason=comment.reason)
        return found or self._by_option(finding)

    def comments(self, file: str) -> tuple[Comment, ...]:
        """The suppression comments of a file."""
        if file not in self._files:
            self._files[file] = tuple(comments(file))
        return self._files[file]

    def _by_option(self, finding: Finding) -> Suppressed | None:
        for place in places(finding):
            for pattern, codes in self.per_file.items():
                if self._file_matches(place.file, pattern) and _names(codes, finding.code):
                    return Suppressed(finding=finding, by=f'per-file-ignores "{pattern}"')
        for pattern, codes in self.per_module.items():
            hit = finding.modules and all(fnmatchcase(path, pattern) for path in finding.modules)
            if hit and _names(codes, finding.code):
                return Suppressed(finding=finding, by=f'per-module-ignores "{pattern}"')
        return None

    def _file_matches(self, file: str, pattern: str) -> bool:
        path = Path(file).absolute()
        root = self.root.absolute()
        names = [path.name, path.as_posix()]
        if path.is_relative_to(root):
            names.append(path.relative_to(root).as_posix())
        return any(fnmatchcase(name, pattern) for name in names)


def places(finding: Finding) -> Iterator[Location]:
    """Where a comment silences a finding: at its own span, and at the calls of its sites."""
    if finding.location is not None:
        yield finding.location
    yield from (site.call for site in finding.sites if site.call is not None)


def comments(file: str) -> Iterator[Comment]:
    """The suppression comments of a file, in order; nothing for a file that cannot be read.

    Raises:
        ConfigError: A comment names no rule, or one that does not exist.
    """
    text = "".join(source_lines(file))
    if "normdoctor:" not in text and "noqa" not in text.lower():
        return
    yield from parse(text, file)


def parse(text: str, file: str) -> Iterator[Comment]:
    """Read the suppression comments out of source text; `file` is for error messages."""
    tokens = _tokens(text)
    for position, token in enumerate(tokens):
        if token.type != tokenize.COMMENT:
            continue
        (line, column), end = token.start, token.end[1]
        place = Location(file, line, column + 1, line, end + 1)
        for own in OWN.finditer(token.string):
            named = _named(own, file, line)
            reason = (own["reason"] or "").strip()
            if own["verb"] == "file-ignore":
                lines = None
            elif token.line[:column].strip():
                lines = range(line, line + 1)
            else:
                lines = _next_statement(tokens, position)
            yield Comment(place, f"normdoctor: {own['verb']}", lines, named, reason)
        if noqa := NOQA.search(token.string):  # both forms may stand in one comment
            codes = re.findall(r"[A-Z]+[0-9]+", noqa["codes"].upper())
            yield Comment(place, "noqa", range(line, line + 1), {code: frozenset({code}) for code in codes})


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    found: list[tokenize.TokenInfo] = []
    try:
        found.extend(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return found


def _next_statement(tokens: list[tokenize.TokenInfo], position: int) -> range:
    """The lines of the statement after a comment; inside brackets, the next line with code."""
    depth = 0
    for token in tokens[:position]:
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
    rest = [
        t for t in tokens[position + 1 :] if t.type not in (tokenize.COMMENT, *LAYOUT - {tokenize.NEWLINE})
    ]
    if not rest:
        return range(0)
    start = rest[0].start[0]
    if depth > 0:
        return range(start, start + 1)
    end = next((t.start[0] for t in rest if t.type == tokenize.NEWLINE), start)
    return range(start, end + 1)


def _named(match: re.Match[str], file: str, line: int) -> dict[str, frozenset[str]]:
    texts = split_selectors([match["codes"] or ""])
    if not texts:
        raise ConfigError(
            f"{file}:{line}: `# normdoctor: {match['verb']}` names no rule",
            hint=f"Write what it is about, e.g. `# normdoctor: {match['verb']}[ND101] -- the reason`.",
        )
    try:
        return {text: parse_selector(text).codes for text in texts}
    except NormDoctorError as error:
        raise ConfigError(f"{file}:{line}: {error.message}", hint=error.hint) from error


def _names(selectors: Iterable[str], code: str) -> bool:
    return any(code in parse_selector(text).codes for text in selectors)
