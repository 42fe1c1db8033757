"""JUnit XML for servers that collect tests: one suite a target, one test a rule."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from normdoctor.findings import Finding, node_id
from normdoctor.output import Format
from normdoctor.output.paths import shown
from normdoctor.report import Problem, RuleResult, at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normdoctor.output.style import Style
    from normdoctor.report import Report


def render(report: Report, style: Style) -> str:
    """Write the outcome of every rule; findings that fail nothing stand in `system-out`."""
    root = ET.Element("testsuites", name="normdoctor")
    names = [target.name for target in report.targets]
    names += [problem.target for problem in report.problems] + [result.target for result in report.results]
    for name in dict.fromkeys(names):
        _suite(root, name, report, style)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", "0")
    ET.indent(root)
    declaration = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{declaration}{ET.tostring(root, encoding='unicode')}\n"


def _xml(text: str, style: Style) -> str:
    """Text without the characters that XML 1.0 forbids; it escapes the rest itself."""
    return re.sub("[\ufffe\uffff]", "?", style.clean(text))


def _suite(root: ET.Element, target: str, report: Report, style: Style) -> None:
    suite = ET.SubElement(root, "testsuite", name=_xml(node_id(target) or "normdoctor", style))
    _properties(suite, target, report, style)
    results = [result for result in report.results if result.target == target]
    problems = [problem for problem in report.problems if problem.target == target]
    for result in results:
        findings = [f for f in report.findings if f.target == target and f.code == result.code]
        _case(suite, result, findings, report, style)
    for problem in problems:
        _problem(suite, problem, style)
    outcomes = [result.outcome for result in results]
    counts = {
        "tests": len(results) + len(problems),
        "failures": outcomes.count("failed"),
        "errors": outcomes.count("error") + len(problems),
        "skipped": outcomes.count("skipped"),
        "time": 0,
    }
    for key, count in counts.items():
        suite.set(key, str(count))


def _properties(suite: ET.Element, target: str, report: Report, style: Style) -> None:
    found = {
        **{f"environment.{key}": value for key, value in report.environment.items()},
        "fail_on": report.fail_on,
        "findings": str(sum(finding.target == target for finding in report.findings)),
        "known": str(sum(finding.target == target for finding in report.known)),
        "suppressed": str(sum(item.finding.target == target for item in report.suppressed)),
    }
    holder = ET.SubElement(suite, "properties")
    for key, value in found.items():
        ET.SubElement(holder, "property", name=_xml(key, style), value=_xml(value, style))


def _case(
    suite: ET.Element, result: RuleResult, findings: Sequence[Finding], report: Report, style: Style
) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_xml(node_id(result.target) or "normdoctor", style),
        name=_xml(f"{result.code} {result.name}", style),
        time="0",
    )
    failing = at_least(findings, report.fail_on)
    if place := next((f.location for f in findings if f.location), None):
        case.set("file", _xml(shown(place).rsplit(":", 2)[0], style))
        case.set("line", str(place.line))
    if result.outcome == "skipped":
        ET.SubElement(case, "skipped", message=_xml(result.reason, style))
    elif result.outcome == "error":
        ET.SubElement(case, "error", message=_xml(result.reason, style), type="rule-crashed")
    elif failing:
        worst = max(failing, key=lambda finding: finding.severity.rank)
        text = "\n".join(_line(finding, style) for finding in failing)
        message = _xml(worst.message, style)
        ET.SubElement(case, "failure", message=message, type=str(worst.severity)).text = text
    if others := [finding for finding in findings if finding not in failing]:
        ET.SubElement(case, "system-out").text = "\n".join(_line(finding, style) for finding in others)


def _problem(suite: ET.Element, problem: Problem, style: Style) -> None:
    name = _xml(node_id(problem.target), style)
    case = ET.SubElement(suite, "testcase", classname=name, name="examination", time="0")
    error = ET.SubElement(case, "error", message=_xml(problem.message, style), type="not-examined")
    error.text = _xml(problem.hint, style) or None


def _line(finding: Finding, style: Style) -> str:
    where = f"{shown(finding.location)}: " if finding.location else ""
    modules = ", ".join(path or "the model" for path in finding.modules)
    listed = f" [{modules}]" if modules else ""
    return _xml(f"{where}{finding.severity}: {finding.message}{listed}", style)


FORMAT = Format("junit", render, machine=True)
