"""`normdoctor check`: examine models and report what is wrong with them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normdoctor.cli.options import (
    FILE,
    config_options,
    input_options,
    look_options,
    make_settings,
    make_style,
    selection_options,
    training_options,
)
from normdoctor.cli.reporting import Reporter
from normdoctor.errors import UsageError
from normdoctor.output import format_names, get_format

if TYPE_CHECKING:
    from normdoctor.config import Settings
    from normdoctor.report import Report


@click.command(short_help="Examine models and report what is wrong with them.")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@input_options
@training_options
@selection_options
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info", "never"]),
    help="The severity from which on findings fail the run (default: warning).",
)
@click.option("--exit-zero", is_flag=True, help="Findings fail nothing; the same as --fail-on never.")
@click.option(
    "--min-confidence",
    type=click.Choice(["low", "medium", "high"]),
    help="Show findings of this confidence and above (default: medium).",
)
@click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first rule that fails.")
@click.option(
    "--output-format",
    type=click.Choice(format_names()),
    envvar="NORMDOCTOR_OUTPUT_FORMAT",
    help="How to write the report (default: full).",
)
@click.option("--output-file", type=FILE, help="Write the report to this file.")
@click.option("--show-skipped", is_flag=True, help="List the rules that could not run, with reasons.")
@click.option("--save-facts", type=FILE, help="Write what was learnt of the models to this file.")
@click.option("--from-facts", type=FILE, help="Check what --save-facts wrote, without the model.")
@config_options
@look_options
def command(
    targets: tuple[str, ...],
    color: str,
    quiet: bool,
    verbose: int,
    show_skipped: bool,
    output_file: Path | None,
    exit_zero: bool,
    config: Path | None,
    isolated: bool,
    **given: Any,
) -> None:
    """Check models: TARGET is model.py, model.py:Net, pkg.mod:factory(depth=18), a folder or a node id.

    Without TARGET, the targets of the configuration file are checked.

    Exit codes: 0 nothing fails, 1 findings at or above --fail-on, 2 an error.
    """
    started = time.perf_counter()
    if exit_zero:
        if given["fail_on"] not in (None, "never"):
            raise UsageError(f"--exit-zero and --fail-on {given['fail_on']} contradict each other")
        given["fail_on"] = "never"
    style = replace(make_style(color, quiet, verbose), show_skipped=show_skipped)
    specs, settings = make_settings(targets, config, isolated, **given)
    for file in (output_file, settings.save_facts):
        _spare_source(file)
    reporter = Reporter(get_format(settings.output_format), style, output_file)
    report = _check(specs, targets, settings, reporter)
    reporter.write(report, time.perf_counter() - started)
    click.get_current_context().exit(report.exit_code)


def _spare_source(file: Path | None) -> None:
    if file is not None and file.suffix in (".py", ".ipynb", ".toml"):
        raise UsageError(
            f"{file} would be overwritten: expected a file for a report, not for source",
            hint="Name it report.txt or report.json.",
        )


def _check(specs: tuple[str, ...], named: tuple[str, ...], settings: Settings, reporter: Reporter) -> Report:
    if settings.from_facts is not None:
        from normdoctor.running import check_facts, load_facts

        if named:
            raise UsageError("--from-facts takes the place of TARGET", hint="Give one of them.")
        return check_facts(load_facts(settings.from_facts), settings, reporter.on_result)
    if not specs:
        raise UsageError(
            "nothing to check: expected a TARGET, or `targets` in the configuration file",
            hint="For example: normdoctor check model.py",
        )
    from normdoctor import doctor

    return doctor.check_targets(specs, settings, reporter.on_result)
