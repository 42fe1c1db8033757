"""SARIF 2.1.0 for code scanning: rules with their pages, results with source spans and module paths."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import normdoctor
from normdoctor.facts import Location
from normdoctor.findings import Confidence, Finding, Severity, node_id
from normdoctor.output import Format
from normdoctor.output.paths import anchor_file, shown_path
from normdoctor.output.plainjson import plain, to_text
from normdoctor.output.prose import section
from normdoctor.output.schema import fix_to_dict
from normdoctor.rules import find_rule
from normdoctor.rules.base import page_of, summary_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normdoctor.output.style import Style
    from normdoctor.report import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
PRECISION = {Confidence.HIGH: "high", Confidence.MEDIUM: "medium", Confidence.LOW: "low"}
#: What relative addresses start from; the service that reads the file knows where that is.
ROOT = "%SRCROOT%"


def render(report: Report, style: Style) -> str:
    """Write one run. No fixes are in it: none of ours is an edit of the source yet."""
    everything = [
        *((finding, []) for finding in report.findings),
        *((f, [{"kind": "external", "justification": "in the baseline"}]) for f in report.known),
        *((item.finding, [_suppression(item.by, item.reason)]) for item in report.suppressed),
    ]
    codes = sorted({finding.code for finding, _ in everything} | {r.code for r in report.results})
    names = {finding.code: finding.name for finding, _ in everything}
    index = {code: number for number, code in enumerate(codes)}
    seen: Counter[str] = Counter()
    run = {
        "tool": {
            "driver": {
                "name": "normdoctor",
                "version": normdoctor.__version__,
                "semanticVersion": normdoctor.__version__,
                "rules": [_rule(code, names.get(code, "")) for code in codes],
            }
        },
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index, marks, seen) for finding, marks in everything],
    }
    return to_text({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, style)


def _invocation(report: Report) -> dict[str, Any]:
    failed = [(f"{p.target}: {p.message}", "not-examined") for p in report.problems]
    failed += [(f"{r.node_id}: {r.reason}", r.code) for r in report.results if r.outcome == "error"]
    skipped = [(f"{r.node_id} was skipped: {r.reason}", r.code) for r in report.skipped]
    notes = [_notification(text, about, "error") for text, about in failed]
    notes += [_notification(text, about, "note") for text, about in skipped]
    return {"executionSuccessful": not failed, "toolExecutionNotifications": notes}


def _notification(text: str, about: str, level: str) -> dict[str, Any]:
    return {"message": {"text": text}, "level": level, "descriptor": {"id": about}}


def _rule(code: str, name: str) -> dict[str, Any]:
    rule = find_rule(code)
    if rule is None:
        return {"id": code, **({"name": name} if name else {})}
    page = page_of(rule)
    uri = documentation()
    return {
        "id": code,
        "name": rule.name,
        "shortDescription": {"text": summary_of(rule)},
        "fullDescription": {"text": " ".join(section(page, "What it does").split()) or summary_of(rule)},
        "help": {"text": page, "markdown": page},
        **({"helpUri": f"{uri.rstrip('/')}/rules/{rule.name}.html"} if uri else {}),
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {
            "tags": [rule.category, *(["preview"] if rule.preview else [])],
            "precision": PRECISION[rule.confidence],
        },
    }


def documentation() -> str:
    """Where the package says that its documentation is; empty where it does not say."""
    try:
        urls = metadata("normdoctor").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    found = dict(entry.partition(", ")[::2] for entry in urls)
    return str(found.get("Documentation", ""))


def _result(
    finding: Finding, index: dict[str, int], suppressions: list[dict[str, Any]], seen: Counter[str]
) -> dict[str, Any]:
    seen[finding.fingerprint] += 1
    number = seen[finding.fingerprint]
    related = [_related(n, label, place) for n, (label, place) in enumerate(finding.related)]
    extra = {
        "confidence": str(finding.confidence),
        "target": finding.target,
        "evidence": plain(finding.evidence),
        **({"help": finding.help} if finding.help else {}),
        **({"fix": fix_to_dict(finding.fix)} if finding.fix else {}),
    }
    return {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": list(_locations(finding)),
        **({"relatedLocations": related} if related else {}),
        "partialFingerprints": {"normdoctor/v1": f"{finding.fingerprint}:{number}"},
        "suppressions": suppressions,
        "properties": extra,
    }


def _suppression(by: str, reason: str) -> dict[str, Any]:
    kind = "external" if by.startswith("per-") else "inSource"
    return {"kind": kind, "justification": f"{by}: {reason}" if reason else by}


def _locations(finding: Finding) -> Iterable[dict[str, Any]]:
    logical = [
        {
            "name": path.rpartition(".")[2] or node_id(finding.target),
            "fullyQualifiedName": path or node_id(finding.target),
            "kind": "member",
        }
        for path in finding.modules
        if path or finding.target
    ]
    physical = None
    if finding.location is not None:
        physical = _physical(finding.location)
    elif (file := anchor_file(finding)) is not None:
        physical = _physical(Location(file, 1))
    place = {"physicalLocation": physical} if physical else {}
    if place or logical:
        yield {**place, **({"logicalLocations": logical} if logical else {})}


def _related(number: int, label: str, place: Location) -> dict[str, Any]:
    return {"id": number, "physicalLocation": _physical(place), "message": {"text": label}}


def _physical(place: Location) -> dict[str, Any]:
    region = {"startLine": max(place.line, 1), "startColumn": max(place.column, 1)}
    if place.end_line >= place.line and place.end_column > 0:
        region |= {"endLine": place.end_line, "endColumn": place.end_column}
    path = shown_path(place.file)
    uri = quote(path.encode("utf-8", "backslashreplace"))
    if Path(path).is_absolute():
        return {"artifactLocation": {"uri": f"file:///{uri.lstrip('/')}"}, "region": region}
    return {"artifactLocation": {"uri": uri, "uriBaseId": ROOT}, "region": region}


FORMAT = Format("sarif", render, machine=True)
