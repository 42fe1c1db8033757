"""How often each rule found something: the table of `--statistics`, and the same in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from normdoctor.findings import Finding, Severity
from normdoctor.output.table import table
from normdoctor.rules import find_rule

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: its findings, the modules that they hold for, and how many of them offer a fix."""

    code: str
    name: str
    severity: str
    count: int
    modules: int
    fixable: int


def statistics(report: Report) -> tuple[Row, ...]:
    """A row for each rule that found something, the most frequent first."""
    rows = [_row(findings) for findings in report.by_rule().values()]
    return tuple(sorted(rows, key=lambda row: (-row.count, row.code)))


def _row(findings: Sequence[Finding]) -> Row:
    first = findings[0]
    rule = find_rule(first.code)
    return Row(
        code=first.code,
        name=first.name,
        severity=str(max((f.severity for f in findings), key=lambda level: Severity(level).rank)),
        count=len(findings),
        modules=sum(len(finding.modules) for finding in findings),
        fixable=sum(finding.fix is not None and finding.fix.applicable for finding in findings)
        if rule and rule.fixable
        else 0,
    )


def statistics_table(report: Report, style: Style) -> str:
    """The rows as a table; empty where nothing was found."""
    rows = [
        (str(row.count), row.code, "[*]" if row.fixable else "", row.name, row.severity, str(row.modules))
        for row in statistics(report)
    ]
    headers = ("count", "code", "fixable", "name", "severity", "modules")
    return table(rows, headers, style.width, right=("count", "modules")) if rows else ""


def render_statistics(report: Report, style: Style) -> str:
    """What `--statistics` shows in place of the findings: notes, the table, and the coverage."""
    from normdoctor.output.summary import epilogue, preamble

    parts = ["\n".join(preamble(report, style)), statistics_table(report, style)]
    parts.append("\n".join(epilogue(report, style)))
    return "\n\n".join(part for part in parts if part) + "\n"
