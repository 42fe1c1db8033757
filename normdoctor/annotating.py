"""Writing suppression comments at the lines of findings: what `--add-ignore` does.

A file is changed in one step or not at all, keeps its encoding, line ends and permissions, and is proved
before it is written: the same program, in which every comment covers what it was written for.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from normdoctor.errors import UsageError
from normdoctor.facts import Location
from normdoctor.files import write_whole
from normdoctor.findings import Finding
from normdoctor.grouping import order
from normdoctor.report import Report, RuleResult, at_least, plural
from normdoctor.rules import find_rule
from normdoctor.sources import in_project
from normdoctor.suppression import OWN, Suppressed, parse, places

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def add_ignores(report: Report, root: Path, reason: str = "") -> Report:
    """Write a comment for every finding in the project at `root`; return the report as it is with them.

    Findings without a line in the project's own source stay findings, and `remarks` say so.
    """
    reason = " ".join(reason.split())
    if not reason.isprintable() or "#" in reason:
        raise UsageError("the reason of --add-ignore must be plain text without `#`")
    files: dict[str, _File] = {}
    wanted: dict[int, list[Location]] = {}
    for number, finding in enumerate(report.findings):
        wanted[number] = _spots(finding, root)
        for place in wanted[number]:
            files.setdefault(place.file, _File(place.file)).ask(place, finding.code)
    written = {name: file.write(reason) for name, file in files.items()}
    done = [
        finding
        for number, finding in enumerate(report.findings)
        if wanted[number] and all(written[place.file] for place in wanted[number])
    ]
    changed = [files[name] for name, proved in written.items() if proved]
    count = sum(file.count for file in changed)
    remark = f"{plural(count, 'suppression comment')} written in {plural(len(changed), 'file')}."
    left = [f for f in report.findings if f not in done and not _about_run(f)]
    if left:
        remark += f" {plural(len(left), 'finding')} got none: no line of the project's source could take one."
    return _without(report, done, remark, reason)


def _about_run(finding: Finding) -> bool:
    rule = find_rule(finding.code)
    return rule is not None and rule.about_run


def _spots(finding: Finding, root: Path) -> list[Location]:
    """The spans to comment: that of the finding, or the calls of all its sites; none if that will not do."""
    if _about_run(finding):
        return []
    own = finding.location
    if own is not None and own.file.endswith(".py") and in_project(own.file, root):
        return [own]
    calls = [site.call for site in finding.sites]
    known = [call for call in calls if call is not None and in_project(call.file, root)]
    return list(dict.fromkeys(known)) if len(known) == len(calls) else []


def _without(report: Report, done: Sequence[Finding], remark: str, reason: str) -> Report:
    findings = tuple(finding for finding in report.findings if finding not in done)
    silenced = [
        Suppressed(finding=f, by=f"{Path(place.file).name}:{place.line}", reason=reason)
        for f in done
        for place in list(places(f))[:1]
    ]

    def judged(result: RuleResult) -> RuleResult:
        if result.outcome not in ("failed", "noted"):
            return result
        left = [f for f in findings if (f.target, f.code) == (result.target, result.code)]
        outcome = "failed" if at_least(left, report.fail_on) else "noted" if left else "passed"
        return msgspec.structs.replace(result, outcome=outcome)

    return msgspec.structs.replace(
        report,
        findings=findings,
        results=tuple(judged(result) for result in report.results),
        suppressed=tuple(sorted((*report.suppressed, *silenced), key=lambda item: order(item.finding))),
        remarks=(*report.remarks, remark),
    )


@dataclass(slots=True)
class _File:
    """One source file, and what is to be silenced in it."""

    name: str
    wanted: dict[Location, set[str]] = field(default_factory=dict)
    count: int = 0

    def ask(self, place: Location, code: str) -> None:
        self.wanted.setdefault(place, set()).add(code)

    def write(self, reason: str) -> bool:
        """Put the comments in; False, and the file as it was, where they would not do."""
        path = Path(self.name)
        try:
            data = path.read_bytes()
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
            new, moved = _annotated(text, self.wanted, reason)
            self.count = len(moved)
            proved = _same_program(text, new) and self._covered(new, moved)
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            return False
        if proved:
            try:
                write_whole(path, new.encode(encoding))
            except UnicodeEncodeError as error:
                raise UsageError(
                    f"{self.name} is written in {encoding}, which lacks {error.object!r}"
                ) from error
            except OSError as error:
                raise UsageError(f"cannot write {self.name}: {error.strerror}") from error
        return proved

    def _covered(self, text: str, inserted: Iterable[int]) -> bool:
        comments = list(parse(_plain(text), self.name))
        for place, codes in self.wanted.items():
            shift = sum(line <= place.line for line in inserted if line > 0)
            last = place.end_line + shift if place.end_line else 0
            now = msgspec.structs.replace(place, line=place.line + shift, end_line=last)
            for code in codes:
                if not any(comment.covers(now) and comment.names(code) for comment in comments):
                    return False
        return True


def _annotated(text: str, wanted: dict[Location, set[str]], reason: str) -> tuple[str, list[int]]:
    """The text with comments, and an entry for each: the line above which it was put, or 0 if at an end."""
    lines = LINE.findall(text)
    tokens = list(tokenize.generate_tokens(io.StringIO(_plain(text)).readline))
    ends: dict[int, set[str]] = {}
    above: dict[int, set[str]] = {}
    for place, codes in wanted.items():
        line = _free_line(tokens, lines, place)
        group, number = (ends, line) if line else (above, _statement(tokens, place))
        group.setdefault(number, set()).update(codes)
    for number, codes in ends.items():
        lines[number - 1] = _with_comment(lines[number - 1], _comment(tokens, number), codes, reason)
    for number in sorted(above, reverse=True):
        line = lines[number - 1]
        indent = line[: len(line) - len(line.lstrip())]
        end = line[len(line.rstrip("\r\n")) :] or "\n"
        lines.insert(number - 1, f"{indent}{_text(above[number], reason)}{end}")
    return "".join(lines), [0] * len(ends) + list(above)


def _free_line(tokens: Sequence[tokenize.TokenInfo], lines: Sequence[str], place: Location) -> int:
    """The first line of a span at whose end a comment can stand; 0 if there is none.

    None can within a string of several lines or before a line that a backslash continues.
    """
    ends = {t.start[0] for t in tokens if t.type in (tokenize.NL, tokenize.NEWLINE)}
    for number in range(place.line, max(place.line, place.end_line) + 1):
        code = lines[number - 1].strip() if number <= len(lines) else ""
        if number in ends and code and not code.startswith("#"):
            return number
    return 0


def _statement(tokens: Sequence[tokenize.TokenInfo], place: Location) -> int:
    """The first line of the statement that a span lies in."""
    first, fresh = place.line, True
    skipped = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    for token in tokens:
        if token.type in skipped:
            continue
        if token.start[0] > place.line:
            break
        if fresh:
            first = token.start[0]
        fresh = token.type == tokenize.NEWLINE
    return first


def _comment(tokens: Sequence[tokenize.TokenInfo], line: int) -> int | None:
    """The column at which the comment of a line begins."""
    return next((t.start[1] for t in tokens if t.type == tokenize.COMMENT and t.start[0] == line), None)


def _with_comment(line: str, column: int | None, codes: set[str], reason: str) -> str:
    body = line.rstrip("\r\n")
    end = line[len(body) :]
    if column is not None:
        own = next((m for m in OWN.finditer(body, column) if m["verb"] == "ignore" and m["codes"]), None)
        if own is not None:
            named = [part.strip() for part in own["codes"].split(",")]
            listed = ", ".join([*named, *sorted(codes - set(named))])
            why = f" -- {reason}" if reason and not own["reason"] else ""
            return f"{body[: own.start('codes')]}{listed}]{why}{body[own.end('codes') + 1 :]}{end}"
    return f"{body.rstrip()}  {_text(codes, reason)}{end}"


def _text(codes: set[str], reason: str) -> str:
    return f"# normdoctor: ignore[{', '.join(sorted(codes))}]" + (f" -- {reason}" if reason else "")


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _same_program(old: str, new: str) -> bool:
    return ast.dump(ast.parse(old)) == ast.dump(ast.parse(new))
