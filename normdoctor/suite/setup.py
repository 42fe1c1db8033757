"""The start of a run: the options are checked before the first test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from normdoctor.errors import NormDoctorError, UsageError, near
from normdoctor.output import format_names
from normdoctor.report import plural

if TYPE_CHECKING:
    from normdoctor.suite.state import State

#: The end of a file's name to the format that is written to it.
SUFFIXES = {
    ".json": "json",
    ".html": "html",
    ".sarif": "sarif",
    ".sarif.json": "sarif",
    ".xml": "junit",
    ".md": "markdown",
    ".txt": "full",
}


def configure(state: State) -> None:
    """Check the options; every mistake is a pytest.UsageError, with which pytest ends at once."""
    try:
        _configure(state)
    except NormDoctorError as error:
        raise pytest.UsageError(str(error)) from error


def _configure(state: State) -> None:
    option = state.config.option
    settings = state.settings
    if not state.on_worker:
        for file in option.normdoctor_report:
            _check_report(state.config.invocation_params.dir / file)
    if option.normdoctor_update_baseline:
        if not option.normdoctor:
            raise UsageError(
                "--normdoctor-update-baseline needs --normdoctor: a baseline is one of targets",
                hint="For example: pytest --normdoctor --normdoctor-update-baseline",
            )
        if settings.baseline is None:
            raise UsageError(
                "--normdoctor-update-baseline needs to know the file",
                hint='Name it in the configuration: baseline = "baseline.json".',
            )
    if option.normdoctor:
        from normdoctor.suite.plan import Plan

        state.plan = Plan(settings, state.config)
        state.plan.take_arguments()


def format_of(file: Path) -> str:
    """The format that the name of a file asks for."""
    suffix = ".sarif.json" if file.name.endswith(".sarif.json") else file.suffix
    known = [ending for ending, form in SUFFIXES.items() if form in format_names()]
    if suffix.lower() not in known:
        raise UsageError(
            f"--normdoctor-report {file.name}: expected a name that ends in {', '.join(known)}",
            hint=near(suffix, known),
        )
    return SUFFIXES[suffix.lower()]


def _check_report(file: Path) -> None:
    """Raise UsageError for a file that no report can be written to."""
    format_of(file)
    there = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8"):
            pass
        if not there:
            file.unlink()
    except OSError as error:
        raise UsageError(f"cannot write the report to {file}: {error.strerror}") from error


def header(state: State) -> str:
    """The line at the top of pytest's output."""
    count = len(state.plan.specs) if state.plan else 0
    return f"normdoctor: {plural(count, 'target')}, findings fail from {state.settings.fail_on} on"
