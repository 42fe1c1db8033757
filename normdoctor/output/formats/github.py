"""Workflow commands that GitHub Actions shows as annotations, and a summary of the step.

GitHub shows the first ten annotations of a step: the severest come first, and all stand in the summary, which
is written where `GITHUB_STEP_SUMMARY` says.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from normdoctor.errors import UsageError
from normdoctor.findings import Finding, Severity
from normdoctor.grouping import severest
from normdoctor.output import Format
from normdoctor.output.paths import anchor_file, inside, shown
from normdoctor.output.style import Style

if TYPE_CHECKING:
    from normdoctor.report import Report

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, style: Style) -> str:
    """Write one command for each finding, and for each target that could not be examined."""
    lines = [
        _command("error", {"title": "normdoctor"}, f"{problem.target}: {problem.message}", style)
        for problem in report.problems
    ]
    lines += [_annotation(finding, style) for finding in severest(report.findings)]
    return "".join(f"{line}\n" for line in lines)


def write_summary(report: Report) -> None:
    """Append the report as Markdown to the summary of the step, where there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    from normdoctor.output.formats.markdown import render as markdown

    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(markdown(report, Style()))
    except OSError as error:
        raise UsageError(f"cannot write the summary of the step to {path}: {error.strerror}") from error


def _annotation(finding: Finding, style: Style) -> str:
    place = finding.location
    file = anchor_file(finding)
    fields = {"title": f"normdoctor {finding.code} {finding.name}"}
    if file is not None:
        fields["file"] = file
        own = place is not None and inside(place.file) is not None
        fields["line"] = str(place.line if own and place else 1)
        if own and place and place.end_line >= place.line:
            fields["endLine"] = str(place.end_line)
        if own and place:
            fields["col"] = str(place.column)
        if own and place and place.end_line == place.line and place.end_column > place.column:
            fields["endColumn"] = str(place.end_column - 1)
    where = shown(place) if place else finding.node_id.removesuffix(f"::{finding.code}")
    text = f"{where}: {finding.code} {finding.message}"
    return _command(COMMANDS[finding.severity], fields, text, style)


def _command(name: str, fields: dict[str, str], text: str, style: Style) -> str:
    listed = ",".join(f"{key}={_property(value, style)}" for key, value in fields.items())
    return f"::{name} {listed}::{_data(text, style)}"


def _data(text: str, style: Style) -> str:
    lines = [style.clean(line) for line in text.replace("\r\n", "\n").split("\n")]
    return "%0A".join(line.replace("%", "%25") for line in lines)


def _property(text: str, style: Style) -> str:
    return _data(text, style).replace(":", "%3A").replace(",", "%2C")


FORMAT = Format("github", render, machine=True, aside=write_summary)
