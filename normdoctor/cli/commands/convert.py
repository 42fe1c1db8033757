"""`normdoctor convert`: other norms in the source of a model, as a diff or written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normdoctor.cli.options import (
    NormChoice,
    config_options,
    input_options,
    look_options,
    make_settings,
    make_style,
    offering,
)
from normdoctor.errors import UsageError

if TYPE_CHECKING:
    from normdoctor.fixing.conversion import Conversion
    from normdoctor.output.style import Style

TARGETS = ("ours", "torch", "group", "layer", "instance", "batch", "sync", "rms")


@click.command(short_help="Put other norms into the source of a model.")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", shell_complete=offering("targets"))
@click.option(
    "--to",
    type=NormChoice(TARGETS),
    required=True,
    help="What to build: `ours` and `torch` are the same layers of normdoctor.layers and of torch.",
)
@click.option("--diff", is_flag=True, help="Show the change and write nothing; that is the default.")
@click.option("--write", is_flag=True, help="Write the files.")
@click.option(
    "--where", multiple=True, metavar="PATTERN", help="Only layers at paths such as `layer1.*` (repeatable)."
)
@click.option("--num-groups", type=click.IntRange(min=1), metavar="G", help="Groups of GroupNorm.")
@input_options
@config_options
@look_options
def command(
    targets: tuple[str, ...],
    to: str,
    diff: bool,
    write: bool,
    where: tuple[str, ...],
    num_groups: int | None,
    color: str,
    quiet: bool,
    verbose: int,
    config: Path | None,
    isolated: bool,
    **given: Any,
) -> None:
    """Convert norms in source: constructors, where a factory is named, and norms that are written by hand.

    Every site is listed with what was decided. The new source is loaded and run before anything is written;
    where both layers compute the same, the outputs are compared.

    Exit codes: 0 nothing would change, or it was written; 1 the diff is not empty; 2 an error.
    """
    if diff and write:
        raise UsageError("--diff and --write contradict each other", hint="Give one of them.")
    if num_groups is not None and to != "group":
        raise UsageError(f"--num-groups goes with --to group, not with --to {to}")
    style = make_style(color, quiet, verbose)
    specs, settings = make_settings(targets, config, isolated, **given)
    from normdoctor.fixing import demand_libcst

    demand_libcst()
    from normdoctor.fixing.conversion import convert_targets

    result = convert_targets(specs, settings, to, groups=num_groups, where=where, write=write)
    _show(result, style, write, where)
    if result.problems:
        click.get_current_context().exit(2)
    click.get_current_context().exit(int(bool(result.changes) and not write))


def _show(result: Conversion, style: Style, write: bool, where: tuple[str, ...]) -> None:
    from normdoctor.cli.group import fail
    from normdoctor.output.fixes import diff, files
    from normdoctor.output.paths import shown
    from normdoctor.output.table import table

    for problem in result.problems:
        fail(problem.message, problem.hint)
    if result.problems and not result.decisions:
        return
    if style.verbosity >= 0:
        rows = [
            (
                shown(one.site.place) if one.site.place is not None else one.site.target,
                one.site.what,
                one.text if one.change is not None else f"left: {one.reason}",
                str(len(one.site.paths)),
            )
            for one in result.decisions
        ]
        heads = ("place", "norm", "decision", "modules")
        none = "No line builds norms at these paths only." if where else "No norms were found."
        text = table(rows, heads, 1000, right=("modules",)) if rows else none
        click.echo(style.clean(text) if not rows else text)
        click.echo()
    if not write:
        click.echo(diff(result.changes, style), nl=False, color=style.color)
    if style.verbosity < 0:
        return
    left = len(result.decisions) - result.converted
    verb = "converted" if write else "would be converted"
    lines = [f"{result.converted} of {len(result.decisions)} sites {verb}, {left} left."]
    if result.moved:
        moved = ", ".join(f"{mode} {value:.3g}" for mode, value in result.moved.items())
        lines.append(f"Outputs differ, relative to their size: {moved}.")
    if result.equal:
        lines.append("Outputs are the same, in eval and in train mode.")
    if result.fresh:
        lines.append(f"Rules that fire now and did not before: {', '.join(result.fresh)}.")
    if write:
        lines += [f"Wrote {name}." for name in files(result.changes)]
    for line in lines:
        click.echo(line, err=not write)
