"""A report as a piece of HTML for notebooks: self-contained, escaped, no scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from normdoctor.output.paths import shown
from normdoctor.output.style import Style
from normdoctor.output.summary import coverage

if TYPE_CHECKING:
    from normdoctor.findings import Finding
    from normdoctor.report import Report

COLORS = {"error": "#c0392b", "warning": "#b9770e", "info": "#2471a3"}
STYLE = Style(show_skipped=True)


def to_html(report: Report) -> str:
    """Write a table of the findings under the coverage, and the skipped rules folded away."""
    parts = [f"<p>{_text(sentence)}</p>" for sentence in coverage(report, STYLE)]
    if report.findings:
        head = "".join(f"<th>{title}</th>" for title in ("level", "rule", "what", "where", "modules"))
        rows = "".join(_row(finding) for finding in report.findings)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    parts += [f"<p><b>error:</b> {_text(problem.message)}</p>" for problem in report.problems]
    if report.skipped:
        items = "".join(f"<li>{_text(f'{r.node_id}: {r.reason}')}</li>" for r in report.skipped)
        parts.append(f"<details><summary>skipped rules</summary><ul>{items}</ul></details>")
    return f'<div class="normdoctor">{"".join(parts)}</div>'


def _row(finding: Finding) -> str:
    level = f'<b style="color:{COLORS[finding.severity]}">{finding.severity}</b>'
    where = _text(shown(finding.location)) if finding.location else ""
    cells = (
        level,
        f"{finding.code} {finding.name}",
        _text(finding.message),
        f"<code>{where}</code>",
        _text(", ".join(finding.modules)),
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _text(text: str) -> str:
    return escape(STYLE.clean(text))
