"""The report as plain data, for JSON and for other tools. Within a version, keys are only added.

`normdoctor.output.layout` names and describes every key; the published schema is made of it.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

import normdoctor
from normdoctor.facts import Location
from normdoctor.findings import Finding, Fix, Severity
from normdoctor.output.paths import shown_path
from normdoctor.output.plainjson import plain
from normdoctor.output.statistics import statistics
from normdoctor.report import SCHEMA_VERSION

if TYPE_CHECKING:
    from normdoctor.report import Report, TargetSummary
    from normdoctor.suppression import Suppressed


def to_dict(report: Report) -> dict[str, Any]:
    """Lay a report out as `{schema_version, tool, environment, targets, findings, skipped, summary}`."""
    severities = Counter(finding.severity for finding in report.findings)
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "normdoctor", "version": normdoctor.__version__},
        "environment": dict(report.environment),
        "targets": [_target(report, target) for target in report.targets],
        "findings": [
            *(finding_to_dict(finding) for finding in report.findings),
            *(finding_to_dict(finding, known=True) for finding in report.known),
            *(finding_to_dict(item.finding, item) for item in report.suppressed),
        ],
        "skipped": [
            {"rule": result.code, "name": result.name, "target": result.target, "reason": result.reason}
            for result in report.skipped
        ],
        "problems": [
            {"target": problem.target, "message": problem.message, "hint": problem.hint}
            for problem in report.problems
        ],
        "summary": {
            "ok": report.ok,
            "fail_on": report.fail_on,
            "findings": {str(level): severities[level] for level in reversed(Severity)},
            "known": len(report.known),
            "suppressed": len(report.suppressed),
            "hidden": report.hidden,
            "rules": report.counts(),
            "coverage": report.coverage,
            "statistics": [msgspec.to_builtins(row) for row in statistics(report)],
        },
    }


def finding_to_dict(
    finding: Finding, suppressed: Suppressed | None = None, *, known: bool = False
) -> dict[str, Any]:
    """One finding with its addresses, figures and fix."""
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": str(finding.severity),
        "confidence": str(finding.confidence),
        "message": finding.message,
        "target": finding.target,
        "node_id": finding.node_id,
        "modules": list(finding.modules),
        "location": _place(finding.location),
        "related": [{"label": label, "location": _place(place)} for label, place in finding.related],
        "evidence": plain(finding.evidence),
        "sites": [
            {"module": site.module, "evidence": plain(site.evidence), "call": _place(site.call)}
            for site in finding.sites
        ],
        "fix": None if finding.fix is None else fix_to_dict(finding.fix),
        "help": finding.help,
        "fingerprint": finding.fingerprint,
        "baseline": known,
        "suppressed": suppressed is not None,
        "suppression": None if suppressed is None else {"by": suppressed.by, "reason": suppressed.reason},
    }


def _target(report: Report, target: TargetSummary) -> dict[str, Any]:
    outcomes: dict[str, list[str]] = {}
    for result in report.results:
        if result.target == target.name:
            outcomes.setdefault(result.outcome, []).append(result.code)
    inputs = [
        {"name": i.name, "shape": list(i.tensor.shape), "dtype": i.tensor.dtype, "source": i.source}
        for i in target.inputs
    ]
    measured = {
        "signal": [_row(row) for row in target.profile],
        "gradients": [_row(row) for row in target.gradients],
        "activity": [_row(row) for row in target.activity],
        "running_stats": [_row(row) for row in target.running_stats],
        "batch_sizes": [_row(row) for row in target.batch_sizes],
    }
    return {
        "name": target.name,
        "recorded": target.recorded,
        "inputs": inputs,
        "notes": list(target.notes),
        "norms": dict(target.norms),
        "modules": target.modules,
        "parameters": target.parameters,
        "rules": outcomes,
        "inventory": [_row(row) | {"location": _place(row.location)} for row in target.inventory],
    } | ({"measured": measured} if any(measured.values()) else {})


def _row(row: msgspec.Struct) -> dict[str, Any]:
    """A row of a view; NaN and infinity, which JSON does not have, are null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in msgspec.to_builtins(row).items()
    }


def fix_to_dict(fix: Fix) -> dict[str, Any]:
    """A fix as plain data; `steps` are there where it has some."""
    steps = [msgspec.to_builtins(step) | ({"at": _place(step.at)} if step.at else {}) for step in fix.steps]
    plain = {"title": fix.title, "applicability": str(fix.applicability), "edits": dict(fix.edits)}
    return plain | ({"steps": steps} if steps else {})


def _place(location: Location | None) -> dict[str, Any] | None:
    if location is None:
        return None
    return {**msgspec.to_builtins(location), "file": shown_path(location.file)}
