"""What was examined and what was not: the verdict, the targets, the rules that were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normdoctor.findings import Severity, node_id
from normdoctor.output.page.figures import Table
from normdoctor.output.page.norms import norm_table
from normdoctor.output.style import Style
from normdoctor.output.summary import coverage
from normdoctor.report import RuleResult, plural
from normdoctor.views.inventory import times

if TYPE_CHECKING:
    from normdoctor.output.page.cards import Card
    from normdoctor.report import Report, TargetSummary

#: How the forward was recorded, in words.
RECORDED = {
    "meta": "on the meta device, without data",
    "fake": "with fake tensors, without data",
    "real": "with real tensors",
    "": "not recorded",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result in a sentence, and its tone: a level of findings, `fine`, or `plain` for no result."""

    tone: str
    text: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """One target: pairs of a word and what holds for it, and the notes on its examination."""

    name: str
    about: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    norms: Table | None


def title(report: Report) -> str:
    """What was examined, for the head of a page."""
    names = [target.name for target in report.targets] or [problem.target for problem in report.problems]
    names = [name for name in dict.fromkeys(names) if name]
    if len(names) == 1:
        return names[0]
    return f"{len(names)} models" if names else "Nothing was examined"


def verdict(report: Report) -> Verdict:
    """The result; a report in which rules were skipped says so, and none calls a model healthy."""
    sentences = tuple(coverage(report, Style(show_skipped=True)))
    broken = sum(result.outcome == "error" for result in report.results)
    if report.problems or broken:
        parts = [plural(len(report.problems), "target") + " could not be examined"] if report.problems else []
        parts += [plural(broken, "rule") + " raised an error"] if broken else []
        return Verdict("error", " and ".join(parts), sentences)
    if report.failures:
        worst = max((finding.severity for finding in report.failures), key=lambda level: level.rank)
        count = plural(len(report.failures), "finding")
        return Verdict(str(worst), f"The check fails: {count} at or above {report.fail_on}", sentences)
    if report.findings:
        worst = max((finding.severity for finding in report.findings), key=lambda level: level.rank)
        never = report.fail_on == "never"
        floor = "nothing fails it" if never else f"nothing is at or above {report.fail_on}"
        return Verdict(str(worst), f"The check passes: {floor}", sentences)
    if not any(result.outcome != "skipped" for result in report.results):
        return Verdict("plain", "Nothing was examined", sentences)
    part = " by the rules that ran" if report.skipped else ""
    return Verdict("fine", f"Nothing was found{part}", sentences)


def tiles(report: Report) -> tuple[tuple[str, str, str], ...]:
    """Level, number and noun of what is counted at the top."""
    counted = Counter(finding.severity for finding in report.findings)
    words = {Severity.ERROR: ("error", "errors"), Severity.WARNING: ("warning", "warnings")}
    found = [
        (str(level), str(counted[level]), words.get(level, ("info", "info"))[counted[level] != 1])
        for level in reversed(Severity)
    ]
    ran = sum(result.outcome != "skipped" for result in report.results)
    layers = sum(sum(target.norms.values()) for target in report.targets)
    checks = "rules ran" if len(report.targets) < 2 else "checks ran"
    found.append(("", f"{ran} of {len(report.results)}", checks))
    found.append(("", f"{layers:,}", "norm layer" if layers == 1 else "norm layers"))
    if quiet := len(report.known) + len(report.suppressed) + report.hidden:
        found.append(("", f"{quiet:,}", "not shown"))
    return tuple(found)


def overviews(report: Report, made: Sequence[Card]) -> tuple[Overview, ...]:
    """All targets, in the order in which they were examined; their norms are linked with the cards."""
    return tuple(_overview(target, report, norm_table(target, made)) for target in report.targets)


def _overview(target: TargetSummary, report: Report, norms_of: Table | None) -> Overview:
    inputs = [f"{i.name}: {i.tensor.dtype} {times(i.tensor.shape)} ({i.source})" for i in target.inputs]
    norms = [f"{count:,} {kind}" for kind, count in target.norms.items()]
    outcomes = Counter(result.outcome for result in report.results if result.target == target.name)
    words = ", ".join(
        f"{outcomes[key]} {key}" for key in ("failed", "noted", "passed", "skipped", "error") if outcomes[key]
    )
    about = [
        ("forward", RECORDED.get(target.recorded, target.recorded)),
        ("inputs", "; ".join(inputs) or "none are known"),
        ("norm layers", ", ".join(norms) or "none"),
        ("modules", f"{target.modules:,}"),
        ("parameters", f"{target.parameters:,}"),
        ("rules", words or "none ran"),
    ]
    return Overview(target.name or "the model", tuple(about), tuple(dict.fromkeys(target.notes)), norms_of)


def by_reason(results: Iterable[RuleResult], *, several: bool) -> Table | None:
    """The reasons for which rules did not run, the most frequent first, and the rules of each."""
    groups: dict[str, list[RuleResult]] = {}
    for result in results:
        groups.setdefault(result.reason or "no reason is known", []).append(result)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = tuple(
        (
            reason,
            ", ".join(dict.fromkeys(f"{result.code} {result.name}" for result in members)),
            *((", ".join(dict.fromkeys(result.target for result in members)),) if several else ()),
        )
        for reason, members in ordered
    )
    headers = ("reason", "rules", *(("targets",) if several else ()))
    return Table("Rules that were skipped", headers, rows) if rows else None


def raised(report: Report) -> Table | None:
    """The rules that raised an error, with its last line."""
    rows = tuple(
        (node_id(result.target), f"{result.code} {result.name}", result.reason)
        for result in report.results
        if result.outcome == "error"
    )
    return Table("Rules that raised an error", ("target", "rule", "error"), rows) if rows else None


def silent(report: Report) -> tuple[str, ...]:
    """The rules that ran and found nothing in any target."""
    outcomes: dict[tuple[str, str], set[str]] = {}
    for result in report.results:
        outcomes.setdefault((result.code, result.name), set()).add(result.outcome)
    return tuple(
        f"{code} {name}"
        for (code, name), found in sorted(outcomes.items())
        if "passed" in found and not found & {"failed", "noted", "error"}
    )


def unshown(report: Report) -> tuple[Table, ...]:
    """What does not count: findings of the baseline, and those that the user silenced."""
    tables = []
    if report.known:
        rows = tuple((f.code, f.name, f.message, f.target) for f in report.known)
        tables.append(Table("Known findings, from the baseline", ("rule", "name", "message", "target"), rows))
    if report.suppressed:
        silenced = tuple(
            (item.finding.code, item.finding.name, item.finding.message, item.by, item.reason)
            for item in report.suppressed
        )
        heads = ("rule", "name", "message", "by", "reason")
        tables.append(Table("Suppressed findings", heads, silenced))
    return tuple(tables)
