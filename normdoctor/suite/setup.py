"""The start of a run: the options are checked before the first test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from normdoctor.baseline import Baseline
from normdoctor.errors import NormDoctorError, UsageError, brief, near
from normdoctor.output import format_names
from normdoctor.report import plural

if TYPE_CHECKING:
    from normdoctor.config import Settings
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
            _check_report(state.config.invocation_params.dir / file, settings.baseline)
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

        if not state.on_worker:
            _check_baseline(settings, option.normdoctor_update_baseline)
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


def _check_report(file: Path, baseline: Path | None) -> None:
    """Raise UsageError for a file that no report can be written to, or that has to stay."""
    format_of(file)
    try:
        real = file.resolve()
        if real != file.absolute():
            format_of(real)  # a link to source, or to the configuration
        if baseline is not None and real == baseline.resolve():
            raise UsageError(
                f"--normdoctor-report and the baseline would be one file: {file}", hint="Name two files."
            )
        there = file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8"):
            pass
        if not there:
            file.unlink()
    except (OSError, RuntimeError, ValueError) as error:  # links that go round, and names with NUL
        raise UsageError(f"cannot write the report to {file}: {_why(error)}") from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or brief(error)


def _check_baseline(settings: Settings, update: bool) -> None:
    """Raise an error for a baseline that cannot be used: once, and not for each item."""
    if settings.baseline is None or (update and not settings.baseline.exists()):
        return
    if not settings.baseline.exists():
        raise UsageError(
            f"no such baseline: {settings.baseline}",
            hint="pytest --normdoctor --normdoctor-update-baseline makes one.",
        )
    Baseline(settings.baseline, settings.root)


def header(state: State) -> str:
    """The line at the top of pytest's output."""
    count = len(state.plan.specs) if state.plan else 0
    return f"normdoctor: {plural(count, 'target')}, findings fail from {state.settings.fail_on} on"
