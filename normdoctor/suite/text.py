"""How findings read in pytest's output: in a failure, beside a test, and in the last lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from normdoctor.findings import Applicability, Finding
from normdoctor.grouping import severest
from normdoctor.output.fixes import fixable
from normdoctor.output.formats.concise import line
from normdoctor.output.formats.full import block, remarks
from normdoctor.output.style import Style
from normdoctor.output.summary import norm_layers, severities
from normdoctor.output.table import table
from normdoctor.report import Report, plural

if TYPE_CHECKING:
    from normdoctor.report import Problem

#: Findings beyond these are counted.
MOST = 20


def finding_text(finding: Finding, *, full: bool = False) -> str:
    """A finding with its line, its modules and its cure; with `full`, its source too."""
    if full:
        return "\n".join(block(finding, Style()))
    return "\n".join([line(finding, Style()), *(f"  {text}" for text in remarks(finding, Style(), False))])


def failure_text(findings: Sequence[Finding], head: str = "", *, full: bool = False) -> str:
    """Findings, the severest first, below a line that counts them."""
    shown = severest(findings)[:MOST]
    texts = [head] if head else []
    texts += [finding_text(finding, full=full) for finding in shown]
    if more := len(findings) - len(shown):
        texts.append(f"and {plural(more, 'more finding')}: --normdoctor-report=report.txt has them all")
    return ("\n\n" if full else "\n").join(texts)


def verdict(report: Report, besides: Iterable[str] = (), *, full: bool = False) -> str:
    """Why a model is not healthy; empty where it is. `besides` are reasons that are no findings."""
    reasons = list(besides)
    if report.ok and not reasons:
        return ""
    lines = [failure_text(report.failures, f"{_head(report)} ({report.coverage})", full=full), *reasons]
    lines += [problem_text(problem) for problem in report.problems]
    lines += [
        Style().clean(f"{result.code} raised {result.reason}")
        for result in report.results
        if result.outcome == "error"
    ]
    return "\n".join(lines)


def problem_text(problem: Problem) -> str:
    """What could not be examined, and what to do."""
    text = f"{problem.target}: {problem.message}" if problem.target else problem.message
    return clean("\n".join([text, *(f"  {hint}" for hint in problem.hint.splitlines())]))


def clean(text: str) -> str:
    """Foreign text of several lines without what a terminal must not get."""
    return "\n".join(Style().clean(part) for part in text.split("\n"))


def _head(report: Report) -> str:
    names = list(dict.fromkeys(target.name for target in report.targets))
    model = Style().clean(", ".join(f"`{name}`" for name in names)) or "the model"
    if report.failures:
        return f"{plural(len(report.failures), 'finding')} in {model}"
    return f"{model} could not be examined whole" if report.problems else f"{model}: a limit is not kept"


def explain(left: object, right: object) -> list[str]:
    """Lines for a failed `assert report.findings == ()`, or for two reports or lists that differ."""
    ours, theirs = _findings(left), _findings(right)
    if not theirs:
        return [f"{plural(len(ours), 'finding')}, expected none", *_listed(ours)]
    lines = [f"{plural(len(ours), 'finding')} and {plural(len(theirs), 'finding')} differ"]
    for name, more, less in (("left", ours, theirs), ("right", theirs, ours)):
        only = [finding for finding in more if finding not in less]
        lines += [f"only on the {name}:", *_listed(only)] if only else []
    return lines


def _listed(findings: Sequence[Finding]) -> list[str]:
    return failure_text(findings).splitlines()


def _findings(value: object) -> list[Finding]:
    if isinstance(value, Report):
        return list(value.findings)
    members = value if isinstance(value, list | tuple) else ()
    return [one for one in members if isinstance(one, Finding)]


def total(report: Report) -> str:
    """`normdoctor: 3 warnings in 2 models (1 fixable)`."""
    models = plural(len(report.targets), "model")
    parts = [f"{severities(report) or 'no findings'} in {models}"]
    if count := fixable(report.findings, Applicability.SAFE):
        parts[0] += f" ({count} fixable)"
    elif not report.findings:
        parts[0] += f" ({report.coverage})"
    parts += [f"{len(report.known)} known"] if report.known else []
    parts += [f"{len(report.suppressed)} suppressed"] if report.suppressed else []
    parts += [f"{len(report.problems)} not examined"] if report.problems else []
    return f"normdoctor: {', '.join(parts)}"


def overview(report: Report, width: int) -> str:
    """A table with a row for each model."""
    rows = []
    for target in report.targets:
        alone = Report(
            findings=tuple(finding for finding in report.findings if finding.target == target.name),
            targets=(target,),
        )
        ran = sum(r.target == target.name and r.outcome != "skipped" for r in report.results)
        layers = norm_layers(alone).partition(" (")[0]
        rows.append((Style().clean(target.name), severities(alone) or "no findings", layers, str(ran)))
    return table(rows, ("model", "found", "normalization", "rules"), width, right=("rules",))
