"""The findings of each file under its name: for reading, where a file has many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.findings import Finding
from normdoctor.output import Format
from normdoctor.output.paths import shown_path
from normdoctor.output.summary import LOOKS, epilogue, preamble

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write notes, a paragraph for each file, and the coverage."""
    files: dict[str, list[Finding]] = {}
    for finding in report.findings:
        files.setdefault(_heading(finding), []).append(finding)
    parts = ["\n".join(_paragraph(name, findings, style)) for name, findings in files.items()]
    notes, closing = preamble(report, style), epilogue(report, style)
    if notes:
        parts.insert(0, "\n".join(notes))
    if closing:
        parts.append("\n".join(closing))
    return "\n\n".join(parts) + "\n" if parts else ""


def _heading(finding: Finding) -> str:
    if finding.location is not None:
        return shown_path(finding.location.file)
    return f"{finding.target} (no source line is known)" if finding.target else "no source line is known"


def _paragraph(name: str, findings: list[Finding], style: Style) -> list[str]:
    places = [f"{f.location.line}:{f.location.column}" if f.location else "-" for f in findings]
    width = max(len(place) for place in places)
    lines = [style.paint(f"{style.clean(name)}:", "bold")]
    for place, finding in zip(places, findings, strict=True):
        count = f" [{len(finding.modules)} modules]" if len(finding.modules) > 1 else ""
        code = style.paint(finding.code, "bold", LOOKS[finding.severity])
        text = f"{code} {style.clean(finding.name)}: {style.clean(finding.message)}{count}"
        lines.append(f"  {place:<{width}}  {text}")
    return lines


FORMAT = Format("grouped", render)
