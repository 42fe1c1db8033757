"""Every finding with its source lines, modules and remedy: the format for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.output import Format
from normdoctor.output.batchtable import asked_for, batch_table
from normdoctor.output.excerpt import excerpt
from normdoctor.output.profile import chart
from normdoctor.output.summary import LOOKS, epilogue, preamble
from normdoctor.rules import find_rule

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report, TargetSummary

#: Module paths beyond these are counted.
MAX_MODULES = 5
APPLICABILITY = {
    Applicability.SAFE: "safe",
    Applicability.UNSAFE: "unsafe: it changes numbers, names or shapes",
    Applicability.DISPLAY: "by hand",
}


def render(report: Report, style: Style) -> str:
    """Write notes, a block for each finding, with -v the signal by depth, and the coverage.

    Statistics by batch size stand there as well, also where nothing but ND701 was asked for.
    """
    several = len(report.targets) > 1
    parts = ["\n".join(block(finding, style, several=several)) for finding in report.findings]
    notes = preamble(report, style)
    if style.verbosity > 0:
        parts += [text for target in report.targets if (text := _profile(target, style, several=several))]
    if style.verbosity > 0 or asked_for(report):
        parts += [text for target in report.targets if (text := _batches(target, style, several=several))]
    closing = epilogue(report, style)
    if notes:
        parts.insert(0, "\n".join(notes))
    if closing:
        parts.append("\n".join(closing))
    return "\n\n".join(parts) + "\n" if parts else ""


def _profile(target: TargetSummary, style: Style, *, several: bool) -> str:
    title = f"signal by depth{f' of {style.clean(target.name)}' if several else ''}:"
    text = chart(target.profile, style)
    return f"{style.paint(title, 'bold')}\n{text}" if text else ""


def _batches(target: TargetSummary, style: Style, *, several: bool) -> str:
    title = f"statistics by batch size{f' of {style.clean(target.name)}' if several else ''}:"
    text = batch_table(target.batch_sizes, style)
    return f"{style.paint(title, 'bold')}\n{text}" if text else ""


def block(finding: Finding, style: Style, *, several: bool = False) -> list[str]:
    """Write one finding; with `several` targets, it names its own."""
    look = LOOKS[finding.severity]
    title = style.paint(f"{finding.severity}[{finding.code}]", "bold", look)
    lines = [f"{title} {style.paint(f'{style.clean(finding.name)}:', 'bold')} {style.clean(finding.message)}"]
    if finding.location is not None:
        source = excerpt(finding.location, finding.related, style, look)
        indent = " " * (len(source[1]) - len(source[1].lstrip())) if len(source) > 1 else "   "
        lines += source
    else:
        where = (
            f"{finding.target} (its source line is not known)" if finding.target else "no source line known"
        )
        lines.append(f"  {style.paint('-->', 'blue')} {style.clean(where)}")
        indent = "   "
    lines += [f"{indent}{style.paint('=', 'blue')} {text}" for text in remarks(finding, style, several)]
    return lines


def remarks(finding: Finding, style: Style, several: bool) -> list[str]:
    """What stands below the source of a finding: its modules, the cure, how sure it is, and its page."""
    said = []
    if several and finding.target:
        said.append(f"target: {style.clean(finding.target)}")
    if named := [path or "the model" for path in finding.modules]:
        more = f" and {len(named) - MAX_MODULES} more" if len(named) > MAX_MODULES else ""
        said.append(f"modules: {style.clean(', '.join(named[:MAX_MODULES]))}{more}")
    if finding.help:
        said.append(f"help: {style.clean(finding.help)}")
    remedy = f", fix: {_fix(finding.fix, style)}" if finding.fix else ""
    said.append(f"confidence {finding.confidence}{remedy}")
    if find_rule(finding.code) is not None:
        said.append(f"normdoctor explain {finding.code}")
    return said


def _fix(fix: Fix, style: Style) -> str:
    return f"{style.clean(fix.title)} ({APPLICABILITY[fix.applicability]})"


FORMAT = Format("full", render)
