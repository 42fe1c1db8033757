"""`normdoctor check`: examine models and report what is wrong with them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normdoctor.cli.fixes import FixOptions, apply_fixes, check_options, exit_code, fix_options, take
from normdoctor.cli.modes import baseline_mode, baseline_options, check_modes, suppression_options
from normdoctor.cli.options import (
    FILE,
    config_options,
    data_options,
    input_options,
    look_options,
    make_settings,
    make_style,
    offering,
    selection_options,
    training_options,
)
from normdoctor.cli.outputs import PairingCommand, keep_apart, outputs, spare_source
from normdoctor.cli.reporting import Reporter
from normdoctor.errors import UsageError
from normdoctor.output import format_names

if TYPE_CHECKING:
    from normdoctor.config import Settings
    from normdoctor.report import Report


@click.command(cls=PairingCommand, short_help="Examine models and report what is wrong with them.")
@click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=offering("targets"))
@input_options
@training_options
@data_options
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
    multiple=True,
    type=click.Choice(format_names()),
    envvar="NORMDOCTOR_OUTPUT_FORMAT",
    help="How to write the report (default: full); repeatable, each with an --output-file.",
)
@click.option("--output-file", multiple=True, type=FILE, help="Write the report to this file (repeatable).")
@click.option("--statistics", is_flag=True, help="Show how often each rule found something, no findings.")
@click.option("--show-skipped", is_flag=True, help="List the rules that could not run, with reasons.")
@click.option("--save-facts", type=FILE, help="Write what was learnt of the models to this file.")
@click.option("--from-facts", type=FILE, help="Check what --save-facts wrote, without the model.")
@fix_options
@baseline_options
@suppression_options
@config_options
@click.option("--show-settings", is_flag=True, help="Show every setting and where it comes from, then exit.")
@look_options
def command(
    targets: tuple[str, ...],
    color: str,
    quiet: bool,
    verbose: int,
    show_skipped: bool,
    statistics: bool,
    output_format: tuple[str, ...],
    output_file: tuple[Path, ...],
    exit_zero: bool,
    config: Path | None,
    isolated: bool,
    show_settings: bool,
    add_ignore: str | None,
    **given: Any,
) -> None:
    """Check models: TARGET is model.py, model.py:Net, pkg.mod:factory(depth=18), a folder or a node id.

    Without TARGET, the targets of the configuration file are checked.

    Exit codes: 0 nothing fails, 1 findings at or above --fail-on, 2 an error.
    """
    started = time.perf_counter()
    fixes = take(given)
    if exit_zero:
        if given["fail_on"] not in (None, "never"):
            raise UsageError(f"--exit-zero and --fail-on {given['fail_on']} contradict each other")
        given["fail_on"] = "never"
    style = replace(make_style(color, quiet, verbose), show_skipped=show_skipped)
    given["baseline_mode"] = baseline_mode(given.pop("write_baseline"), given.pop("prune_baseline"))
    given |= {"progress": not quiet, "fixable": fixes.fixable, "unfixable": fixes.unfixable}
    specs, settings = make_settings(targets, config, isolated, **given)
    if show_settings:
        from normdoctor.cli.origins import show_settings as show

        show(replace(settings, targets=specs), config, isolated, output_format)
        return
    check_modes(settings, add_ignore is not None)
    check_options(fixes, settings, add_ignore is not None)
    for file in (settings.save_facts, settings.baseline):
        if file is not None:
            spare_source(file)
    made = outputs(click.get_current_context(), settings.output_format, output_format)
    reports = {f"--output-file {output.file}": output.file for output in made}
    facts = {"--save-facts": settings.save_facts}
    read = {"--baseline": settings.baseline, "--weights": settings.weights}
    keep_apart(reports | facts, read | {"--from-facts": settings.from_facts})
    reporter = Reporter(made, style, statistics, fixes.unsafe_fixes)
    if fixes.active:
        _fix(specs, settings, fixes, reporter, started)
    report = _check(specs, targets, settings, reporter)
    if add_ignore is not None:
        from normdoctor.annotating import add_ignores

        report = add_ignores(report, settings.root, add_ignore)
    reporter.write(report, time.perf_counter() - started)
    click.get_current_context().exit(report.exit_code)


def _fix(
    specs: tuple[str, ...], settings: Settings, fixes: FixOptions, reporter: Reporter, started: float
) -> None:
    """Apply fixes, or show them, then report what is left; ends the command."""
    _demand_targets(specs)
    outcome = apply_fixes(specs, settings, fixes, reporter)
    reporter.write_fixes(outcome, fixes, time.perf_counter() - started)
    click.get_current_context().exit(exit_code(fixes, outcome))


def _check(specs: tuple[str, ...], named: tuple[str, ...], settings: Settings, reporter: Reporter) -> Report:
    if settings.from_facts is not None:
        from normdoctor.running import check_facts, load_facts

        if named:
            raise UsageError("--from-facts takes the place of TARGET", hint="Give one of them.")
        return check_facts(load_facts(settings.from_facts), settings, reporter.on_result)
    _demand_targets(specs)
    from normdoctor import doctor

    return doctor.check_targets(specs, settings, reporter.on_result)


def _demand_targets(specs: tuple[str, ...]) -> None:
    if not specs:
        raise UsageError(
            "nothing to check: expected a TARGET, or `targets` in the configuration file",
            hint="For example: normdoctor check model.py",
        )
