"""GitLab's code quality report: a list of findings with a path, a line and a fingerprint each."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from normdoctor.findings import Finding, Severity
from normdoctor.output import Format
from normdoctor.output.paths import anchor_file, inside, target_file
from normdoctor.output.plainjson import to_text

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report

LEVELS = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.INFO: "info"}
#: The path of what belongs to no file of the repository.
NOWHERE = "."


def render(report: Report, style: Style) -> str:
    """Write the findings, and the targets that could not be examined as blockers."""
    seen: Counter[str] = Counter()
    entries = [_entry(finding, seen) for finding in report.findings]
    for problem in report.problems:
        text = f"{problem.target}: {problem.message}"
        place = _place(target_file(problem.target), 1, 1)
        print_of = _unique(
            hashlib.sha256(problem.target.encode("utf-8", "backslashreplace")).hexdigest()[:16], seen
        )
        entries.append(_row(text, "not-examined", print_of, "blocker", place))
    return to_text(entries, style)


def _entry(finding: Finding, seen: Counter[str]) -> dict[str, Any]:
    begin = end = 1
    if finding.location is not None and inside(finding.location.file) is not None:
        begin, end = finding.location.line, max(finding.location.line, finding.location.end_line)
    text = f"{finding.code} {finding.name}: {finding.message}"
    place = _place(anchor_file(finding), begin, end)
    return _row(text, finding.name, _unique(finding.fingerprint, seen), LEVELS[finding.severity], place)


def _row(text: str, name: str, print_of: str, level: str, place: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": text,
        "check_name": f"normdoctor {name}",
        "fingerprint": print_of,
        "severity": level,
        "location": place,
    }


def _place(path: str | None, begin: int, end: int) -> dict[str, Any]:
    return {"path": path or NOWHERE, "lines": {"begin": begin, "end": end}}


def _unique(text: str, seen: Counter[str]) -> str:
    """GitLab wants fingerprints that differ; ours are equal for alike findings of one target."""
    seen[text] += 1
    return text if seen[text] == 1 else f"{text}-{seen[text]}"


FORMAT = Format("gitlab", render, machine=True)
