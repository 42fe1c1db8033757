"""`normdoctor check`: examine models and report what is wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable
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
)
from normdoctor.errors import UsageError

if TYPE_CHECKING:
    from normdoctor.config import Settings
    from normdoctor.output import Format
    from normdoctor.output.style import Style
    from normdoctor.report import Report, RuleResult


def _format_names() -> list[str]:
    from normdoctor.output import format_names

    return list(format_names())


@click.command(short_help="Examine models and report what is wrong with them.")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@input_options
@click.option("--loss", metavar="LOSS", help="The loss that the output goes to, e.g. cross_entropy.")
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
    type=click.Choice(_format_names()),
    envvar="NORMDOCTOR_OUTPUT_FORMAT",
    help="How to write the report (default: full).",
)
@click.option("--output-file", type=FILE, help="Write the report to this file.")
@click.option("--show-skipped", is_flag=True, help="List the rules that could not run, with reasons.")
@click.option("--save-facts", type=FILE, help="Write what was learnt of the models to this file.")
@click.option("--from-facts", type=FILE, help="Check what --save-facts wrote, without the model.")
@config_options
@look_options
def command(  # noqa: PLR0917
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
    style = _with_skipped(make_style(color, quiet, verbose), show_skipped)
    given["min_confidence"] = _confidence(given["min_confidence"])
    specs, settings = make_settings(
        targets, config, isolated, **{key: value or None for key, value in given.items()}
    )
    chosen = _format(settings)
    live = verbose > 0 and not chosen.machine and output_file is None
    report = _check(specs, targets, settings, _printer(style) if live else None)
    _write(report, chosen, style, output_file, time.perf_counter() - started, blank=live)
    click.get_current_context().exit(report.exit_code)


def _check(
    specs: tuple[str, ...],
    named: tuple[str, ...],
    settings: Settings,
    on_result: Callable[[RuleResult], None] | None,
) -> Report:
    if settings.from_facts is not None:
        from normdoctor.running import check_facts, load_facts

        if named:
            raise UsageError("--from-facts takes the place of TARGET", hint="Give one of them.")
        return check_facts(load_facts(settings.from_facts), settings, on_result)
    if not specs:
        raise UsageError(
            "nothing to check: expected a TARGET, or `targets` in the configuration file",
            hint="For example: normdoctor check model.py",
        )
    from normdoctor import doctor

    report: Report = doctor.check_targets(specs, settings, on_result)
    return report


def _write(
    report: Report, chosen: Format, style: Style, file: Path | None, seconds: float, *, blank: bool
) -> None:
    from normdoctor.output.style import Style as Plain
    from normdoctor.output.summary import last_line

    if file is None:
        text = chosen.render(report, style)
        if text and blank:
            click.echo()
        click.echo(text, nl=False, color=style.color)
    else:
        plain = Plain(verbosity=style.verbosity, show_skipped=style.show_skipped)
        try:
            file.write_text(chosen.render(report, plain), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the report to {file}: {error.strerror}") from error
    if style.verbosity > 0:
        for result in report.results:
            if result.detail:
                click.echo(f"{result.node_id}\n{result.detail}", err=True, nl=False)
    if not chosen.machine and style.verbosity >= 0:
        click.echo(last_line(report, seconds, style), color=style.color)


def _printer(style: Style) -> Callable[[RuleResult], None]:
    from normdoctor.output.summary import result_line

    return lambda result: click.echo(result_line(result, style), color=style.color)


def _format(settings: Settings) -> Format:
    from normdoctor.output import get_format

    return get_format(settings.output_format)


def _with_skipped(style: Style, show_skipped: bool) -> Style:
    from dataclasses import replace

    return replace(style, show_skipped=show_skipped)


def _confidence(value: str | None) -> Any:
    from normdoctor.findings import Confidence

    return Confidence(value) if value else None
