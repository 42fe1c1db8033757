"""What stands around the findings: notes before, coverage after, and pytest's last line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from normdoctor.findings import Severity, node_id
from normdoctor.report import RuleResult, plural

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report

LOOKS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
OUTCOME_LOOKS = {"failed": "red", "error": "red", "noted": "yellow", "skipped": "yellow", "passed": "green"}


def preamble(report: Report, style: Style) -> list[str]:
    """The notes on each target: what was inferred, why an import stopped, what carried the forward."""
    if style.verbosity < 0:
        return []
    several = len(report.targets) + len(report.problems) > 1
    noted: dict[str, list[str]] = {}
    for target in report.targets:
        for note in dict.fromkeys(target.notes):
            noted.setdefault(note, []).append(target.name)
    lines = []
    for note, names in noted.items():
        where = f"{style.clean(_together(names, report))}: " if several and names[0] else ""
        lines.append(f"{style.paint('note:', 'bold')} {where}{style.clean(note)}")
    return lines


def _together(names: list[str], report: Report) -> str:
    """The targets that share a note: their file where all of it do, otherwise their names."""
    files = dict.fromkeys(node_id(name).partition("::")[0] for name in names)
    everyone = {target.name for target in report.targets if node_id(target.name).partition("::")[0] in files}
    if len(names) > 1 and everyone == set(names):
        return ", ".join(files)
    return ", ".join(dict.fromkeys(names))


def epilogue(report: Report, style: Style) -> list[str]:
    """What could not be examined, what was examined, and what is not shown."""
    lines = []
    for problem in report.problems if style.show_problems else ():
        lines.append(f"{style.paint('error:', 'bold', 'red')} {style.clean(problem.message)}")
        lines += [f"  {style.clean(hint)}" for hint in problem.hint.splitlines()]
    if style.verbosity < 0:
        return lines
    if style.show_skipped:
        lines += [
            f"{style.paint('SKIPPED', 'yellow')} {style.clean(result.node_id)}: {style.clean(result.reason)}"
            for result in report.skipped
        ]
    return lines + [style.clean(sentence) for sentence in coverage(report, style)]


def coverage(report: Report, style: Style) -> list[str]:
    """Say in words how much was examined, with what result, and what was left out."""
    if not report.results:
        return [] if report.problems else ["No rule was selected."]
    layers = norm_layers(report)
    ran = [result for result in report.results if result.outcome != "skipped"]
    rules = plural(len({result.code for result in ran}), "rule")
    if not ran:
        lines = [f"{layers}; no rule could run."]
    elif report.findings:
        lines = [f"{severities(report)} in {layers}, {rules}."]
    else:
        where = " in what could be examined" if report.problems else ""
        lines = [f"{layers}, {rules}, no findings{where}."]
    unmeasured = len(report.unmeasured)
    if skipped := len(report.skipped) - unmeasured:
        share = f"{len(ran)} of {len(report.results) - unmeasured}"
        what = "rules" if len(report.targets) == 1 else "checks (rule and target)"
        place = "report.skipped" if style.library else "--show-skipped"
        hint = "" if style.show_skipped or style.verbosity > 0 else f" (see {place})"
        lines.append(f"{share} {what} ran; {skipped} {_were(skipped)} skipped{hint}.")
    if unmeasured:
        rules = plural(len({result.code for result in report.unmeasured}), "measured rule")
        lines.append(f"{rules} {_were(unmeasured)} skipped: pass data= / --data, or watch a training.")
    if report.known:
        lines.append(f"{plural(len(report.known), 'known finding')} in the baseline.")
    if report.suppressed:
        lines.append(f"{plural(len(report.suppressed), 'finding')} suppressed.")
    if report.hidden:
        place = "min_confidence=" if style.library else "--min-confidence"
        lines.append(f"{plural(report.hidden, 'finding')} of lower confidence not shown (see {place}).")
    return lines


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def severities(report: Report) -> str:
    """`1 error, 2 warnings, 1 info`."""
    counted = Counter(finding.severity for finding in report.findings)
    words = {Severity.ERROR: "error", Severity.WARNING: "warning"}
    return ", ".join(
        plural(counted[level], words[level]) if level in words else f"{counted[level]} info"
        for level in reversed(Severity)
        if counted[level]
    )


def norm_layers(report: Report) -> str:
    """`53 normalization layers (53 BatchNorm2d)`, over all targets."""
    counted: Counter[str] = Counter()
    for target in report.targets:
        counted.update(target.norms)
    kinds = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    detail = ", ".join(f"{count} {kind}" for kind, count in kinds)
    layers = plural(counted.total(), "normalization layer")
    models = f" in {len(report.targets)} models" if len(report.targets) > 1 else ""
    return f"{layers} ({detail}){models}" if detail else f"{layers}{models}"


def result_line(result: RuleResult, style: Style) -> str:
    """Write one test's line as pytest does: `model.py::Net::ND101 PASSED`."""
    word = style.paint(result.outcome.upper(), OUTCOME_LOOKS[result.outcome])
    reason = f" ({style.clean(result.reason)})" if result.reason else ""
    return f"{style.clean(result.node_id)} {word}{reason}"


def last_line(report: Report, seconds: float, style: Style) -> str:
    """Close as pytest does: `== 2 failed, 10 passed, 2 skipped in 0.41s ==`, as wide as the terminal."""
    counts = report.counts()
    parts = [
        (f"{count} {'errors' if key == 'error' and count > 1 else key}", key) for key, count in counts.items()
    ]
    texts = [text for text, _ in parts] or ["no rules ran"]
    title = f"{', '.join(texts)} in {seconds:.2f}s"
    if {"failed", "error"} & counts.keys():
        main = "red"
    elif "noted" in counts or "passed" not in counts:
        main = "yellow"
    else:
        main = "green"
    fill = max((style.width - len(title) - 2) // 2, 1)
    tail = "=" * (fill + ((fill + 1) * 2 + len(title) + 1 <= style.width))
    shown = ", ".join(
        style.paint(text, *(("bold",) if OUTCOME_LOOKS[key] == main else ()), OUTCOME_LOOKS[key])
        for text, key in parts
    ) or style.paint(texts[0], main)
    ending = style.paint(f" in {seconds:.2f}s ", main)
    return f"{style.paint('=' * fill, main)} {shown}{ending}{style.paint(tail, main)}"
