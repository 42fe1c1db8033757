"""One finding for each rule and source line: the sites of a model that share both are merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from normdoctor.findings import Finding, Fix, mask, masked


def natural(path: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which `layer.2` stands before `layer.10`."""
    parts = re.split(r"(\d+)", path)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def order(finding: Finding) -> tuple[object, ...]:
    """The sort key of reports: file, line, column, code, module; findings without a place come last."""
    place = finding.location
    where = (0, place.file, place.line, place.column) if place else (1, "", 0, 0)
    modules = tuple(natural(path) for path in finding.modules)
    return (*where, finding.code, finding.severity, modules, finding.target, finding.message)


def severest(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings before notes, for readers who see the first few only."""
    return sorted(findings, key=lambda finding: (-finding.severity.rank, order(finding)))


def group(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Merge findings of one rule, target, severity and place, fill in `{modules}`, and sort.

    Findings without a place are merged where their module paths differ in indices only; without modules
    either, where they say the same.
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        place: object = finding.location or tuple(mask(path) for path in finding.modules) or finding.message
        key = (finding.target, finding.code, finding.severity, place)
        groups.setdefault(key, []).append(finding)
    return tuple(sorted((_merge(members) for members in groups.values()), key=order))


def _merge(members: Sequence[Finding]) -> Finding:
    members = sorted(members, key=lambda f: [natural(path) for path in f.modules])
    first = members[0]
    modules = tuple(dict.fromkeys(path for member in members for path in member.modules))
    return msgspec.structs.replace(
        first,
        message=_message(members, modules),
        modules=modules,
        confidence=min((member.confidence for member in members), key=lambda level: level.rank),
        related=tuple(dict.fromkeys(entry for member in members for entry in member.related)),
        evidence=_common([member.evidence for member in members]),
        sites=tuple(site for member in members for site in member.sites),
        fix=_fix([member.fix for member in members]),
        help=next((member.help for member in members if member.help), None),
    )


def _fix(fixes: Sequence[Fix | None]) -> Fix | None:
    """One fix for all: equal ones, or ones of the same kind whose steps each name their own place."""
    first, *others = fixes
    if first is None or all(fix == first for fix in others):
        return first if all(fix == first for fix in others) else None
    for fix in others:
        alike = fix is not None and (fix.applicability, fix.edits) == (first.applicability, first.edits)
        if not alike or (fix is not None and fix.title != first.title and not first.steps):
            return None
    known = [fix for fix in fixes if fix is not None]
    return msgspec.structs.replace(
        first,
        steps=tuple(dict.fromkeys(step for fix in known for step in fix.steps)),
        absorbed=tuple(dict.fromkeys(names for fix in known for names in fix.absorbed)),
        everywhere=all(fix.everywhere for fix in known),
    )


def _message(members: Sequence[Finding], modules: tuple[str, ...]) -> str:
    first = members[0]
    if all(member.message == first.message for member in members):
        return first.message.replace("{modules}", masked(modules))
    others = len(modules) - len(first.modules)
    more = f" (likewise {others} more, with other figures)" if others > 0 else ""
    return first.message.replace("{modules}", masked(first.modules)) + more


def _common(evidence: list[dict[str, Any]]) -> dict[str, Any]:
    first, *others = evidence
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }
