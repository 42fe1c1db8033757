"""Findings as cards: what is wrong, where, with which figures, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normdoctor.findings import Applicability, Finding
from normdoctor.grouping import severest
from normdoctor.output.charts import Chart
from normdoctor.output.formats.full import APPLICABILITY
from normdoctor.output.page.figures import Table, by_place, common
from normdoctor.output.page.pictures import Picture, pictures
from normdoctor.output.page.source import Excerpt, excerpts
from normdoctor.output.paths import shown_path
from normdoctor.rules import find_rule

#: Module paths that stand in a card; the others are folded away.
MAX_MODULES = 6


@dataclass(frozen=True, slots=True)
class Card:
    """One finding; `command` applies its fix, `comment` silences it, `explained` says that it has a page."""

    key: str
    finding: Finding
    excerpts: tuple[Excerpt, ...]
    nowhere: str
    modules: tuple[str, ...]
    rest: tuple[str, ...]
    fix: str
    how: str
    command: str
    comment: str
    explained: bool
    common: Table | None
    places: Table | None
    pictures: tuple[Picture, ...]


def cards(findings: Sequence[Finding], charts: Sequence[Chart]) -> tuple[Card, ...]:
    """The cards of findings, severest first; charts about a finding stand in its card."""
    seen: Counter[str] = Counter()
    about: dict[tuple[str, str], list[Chart]] = {}
    for chart in charts:
        about.setdefault((chart.target, chart.about), []).append(chart)
    made = []
    for finding in severest(findings):
        mark = finding.fingerprint
        seen[mark] += 1
        key = f"f-{mark}" if seen[mark] == 1 else f"f-{mark}-{seen[mark]}"
        made.append(_card(finding, key, about))
    return tuple(made)


def _card(finding: Finding, key: str, about: Mapping[tuple[str, str], list[Chart]]) -> Card:
    explained = find_rule(finding.code) is not None
    fix = finding.fix
    return Card(
        key=key,
        finding=finding,
        excerpts=excerpts(finding),
        nowhere=_nowhere(finding),
        modules=finding.modules[:MAX_MODULES],
        rest=finding.modules[MAX_MODULES:],
        fix=fix.title if fix else "",
        how=APPLICABILITY[fix.applicability] if fix else "",
        command=_command(finding),
        comment=f"# normdoctor: ignore[{finding.code}] -- the reason"
        if explained and finding.location
        else "",
        explained=explained,
        common=common(finding),
        places=by_place(finding),
        pictures=pictures(_charts_of(finding, about), f"{key}-p"),
    )


def _charts_of(finding: Finding, about: Mapping[tuple[str, str], list[Chart]]) -> Sequence[Chart]:
    """The charts about a finding; of findings that share a fingerprint each has that of its own place."""
    found = about.get((finding.target, finding.fingerprint), [])
    own = [chart for chart in found if chart.place in finding.modules]
    return own if own and len(found) > 1 else found


def _nowhere(finding: Finding) -> str:
    if finding.location is not None:
        return ""
    return f"{finding.target}, its source line is not known" if finding.target else "no source line is known"


def _command(finding: Finding) -> str:
    """What applies the fix, where the command line can."""
    fix, target = finding.fix, finding.target
    if fix is None or not fix.applicable or finding.location is None or ".py" not in target:
        return ""
    more = " --unsafe-fixes" if fix.applicability is Applicability.UNSAFE else ""
    return f"normdoctor check {shown_path(target)} --select {finding.code} --fix{more} --diff"
