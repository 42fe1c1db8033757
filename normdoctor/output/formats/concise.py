"""One line a finding, `path:line:column: CODE name: message`, which editors can jump along.

`[*]` stands behind what `--fix` would mend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.findings import Applicability, Finding
from normdoctor.output import Format
from normdoctor.output.fixes import fixable
from normdoctor.output.paths import shown
from normdoctor.output.summary import LOOKS, epilogue, preamble

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write notes, a line for each finding, and the coverage."""
    lines = [line(f, style) + (" [*]" if fixable([f], Applicability.SAFE) else "") for f in report.findings]
    parts = [*preamble(report, style), *lines, *epilogue(report, style)]
    return "".join(f"{part}\n" for part in parts)


def line(finding: Finding, style: Style) -> str:
    """Write one finding on one line."""
    where = shown(finding.location) if finding.location else finding.node_id.removesuffix(f"::{finding.code}")
    count = f" [{len(finding.modules)} modules]" if len(finding.modules) > 1 else ""
    code = style.paint(finding.code, "bold", LOOKS[finding.severity])
    return f"{style.clean(where)}: {code} {style.clean(finding.name)}: {style.clean(finding.message)}{count}"


FORMAT = Format("concise", render)
