"""The report as Markdown, for comments on changes and for summaries of steps."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from normdoctor.findings import Finding
from normdoctor.grouping import severest
from normdoctor.output import Format
from normdoctor.output.paths import shown
from normdoctor.output.prose import spans
from normdoctor.output.style import Style
from normdoctor.output.summary import coverage

if TYPE_CHECKING:
    from normdoctor.report import Report

#: Module paths beyond these are counted.
MAX_MODULES = 5
#: What means something in Markdown outside of code.
SPECIAL = re.compile(r"([\\`*_\[\]|~#!])")
#: Code that can stand between backticks within a table as it is.
SIMPLE = re.compile(r"[^`|<>&\\\x00-\x1f]+")


def render(report: Report, style: Style) -> str:
    """Write a table of the findings, severest first, the errors, and the coverage."""
    parts = ["## normdoctor"]
    for problem in report.problems:
        hint = f"  \n{_text(problem.hint, style)}" if problem.hint else ""
        parts.append(f"**error:** {_text(problem.message, style)}{hint}")
    if report.findings:
        several = len(report.targets) > 1
        titles = ["level", "rule", "where", *(["target"] if several else []), "what", "modules"]
        rows = [_cells(finding, style, several=several) for finding in severest(report.findings)]
        table = [titles, ["---"] * len(titles), *rows]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    plain = Style(unicode=style.unicode, show_skipped=style.show_skipped)
    parts += ["  \n".join(_text(sentence, style) for sentence in coverage(report, plain))]
    if style.show_skipped and report.skipped:
        parts.append("\n".join(f"- {_text(f'{r.node_id}: {r.reason}', style)}" for r in report.skipped))
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(finding: Finding, style: Style, *, several: bool) -> list[str]:
    names = [_code(path, style) if path else "the model" for path in finding.modules]
    more = f" and {len(names) - MAX_MODULES} more" if len(names) > MAX_MODULES else ""
    where = _code(shown(finding.location), style) if finding.location else ""
    target = [_code(finding.target, style) if finding.target else ""] if several else []
    rule = f"{finding.code} {_plain(finding.name, style)}"
    modules = ", ".join(names[:MAX_MODULES]) + more
    return [str(finding.severity), rule, where, *target, _text(finding.message, style), modules]


def _text(text: str, style: Style) -> str:
    """Text in which `code` stays code, and everything else means nothing to Markdown or HTML."""
    return "".join(_code(part, style) if code else _plain(part, style) for code, part in spans(text))


def _plain(text: str, style: Style) -> str:
    return SPECIAL.sub(r"\\\1", escape(style.clean(text), quote=False))


def _code(text: str, style: Style) -> str:
    shown_text = style.clean(text)
    if SIMPLE.fullmatch(shown_text) and shown_text == shown_text.strip():
        return f"`{shown_text}`"
    inner = re.sub(r"[\\`*_\[\]|~#!]", lambda m: f"&#{ord(m.group())};", escape(shown_text, quote=False))
    return f"<code>{inner}</code>"


FORMAT = Format("markdown", render, machine=True)
