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
    """One suppression comment: the lines that it covers (none: the whole file) and its codes."""

    line: int
    lines: range | None
    codes: frozenset[str]
    by: str
    reason: str = ""


@dataclass(slots=True)
class Suppressions:
    """Answers whether a finding is silenced; every source file is read at most once."""

    per_file: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    per_module: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = field(default_factory=Path)
    _files: dict[str, tuple[Comment, ...]] = field(default_factory=dict)

    def match(self, finding: Finding) -> Suppressed | None:
        """The reason why a finding (of one site) is silenced; None when it stands."""
        for place in self._places(finding):
            for comment in self._comments(place.file):
                last = max(place.end_line, place.line)
                covered = comment.lines is None or (
                    comment.lines.start <= last and place.line < comment.lines.stop
                )
                if covered and finding.code in comment.codes:
                    return Suppressed(finding=finding, by=comment.by, reason=comment.reason)
        return self._by_option(finding)

    def _places(self, finding: Finding) -> Iterator[Location]:
        if finding.location is not None:
            yield finding.location
        yield from (site.call for site in finding.sites if site.call is not None)

    def _comments(self, file: str) -> tuple[Comment, ...]:
        if file not in self._files:
            self._files[file] = tuple(comments(file))
        return self._files[file]

    def _by_option(self, finding: Finding) -> Suppressed | None:
        for place in self._places(finding):
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
        line = token.start[0]
        if own := OWN.search(token.string):
            codes = _codes(own, file, line)
            reason = (own["reason"] or "").strip()
            by = f"{Path(file).name}:{line}"
            if own["verb"] == "file-ignore":
                yield Comment(line, None, codes, by, reason)
            else:
                alone = not token.line[: token.start[1]].strip()
                covered = _next_statement(tokens, position) if alone else range(line, line + 1)
                yield Comment(line, covered, codes, by, reason)
        elif noqa := NOQA.search(token.string):
            named = frozenset(re.findall(r"[A-Z]+[0-9]+", noqa["codes"].upper()))
            yield Comment(line, range(line, line + 1), named, f"{Path(file).name}:{line}")


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


def _codes(match: re.Match[str], file: str, line: int) -> frozenset[str]:
    named = split_selectors([match["codes"] or ""])
    if not named:
        raise ConfigError(
            f"{file}:{line}: `# normdoctor: {match['verb']}` names no rule",
            hint=f"Write what it is about, e.g. `# normdoctor: {match['verb']}[ND101] -- the reason`.",
        )
    try:
        return frozenset(code for text in named for code in parse_selector(text).codes)
    except NormDoctorError as error:
        raise ConfigError(f"{file}:{line}: {error.message}", hint=error.hint) from error


def _names(selectors: Iterable[str], code: str) -> bool:
    return any(code in parse_selector(text).codes for text in selectors)
