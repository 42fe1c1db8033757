"""`normdoctor show`: what a model holds."""

from __future__ import annotations

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
    offering,
)
from normdoctor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normdoctor.config import Settings
    from normdoctor.facts import Facts
    from normdoctor.output.style import Style


@click.command(short_help="Show every norm, activation and weight of a model.")
@click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=offering("targets"))
@click.option("--norms", is_flag=True, help="Show norms only (may be combined with the next two).")
@click.option("--activations", is_flag=True, help="Show activations only.")
@click.option("--weights", is_flag=True, help="Show layers with weights only.")
@click.option("--axes", is_flag=True, help="Show each step of the forward: shapes, and what axes are.")
@input_options
@click.option("--output-format", "layout", type=click.Choice(["text", "json"]), default="text")
@click.option("--from-facts", type=FILE, help="Show what `check --save-facts` wrote.")
@config_options
@look_options
def command(
    targets: tuple[str, ...],
    norms: bool,
    activations: bool,
    weights: bool,
    axes: bool,
    layout: str,
    config: Path | None,
    isolated: bool,
    color: str,
    quiet: bool,
    verbose: int,
    **given: Any,
) -> None:
    """Show every norm, activation and layer with weights of a model, in the order of execution.

    With --axes, show each step of its forward instead: the shape of the result, and what each axis
    stands for (batch, channel, space, time, heads, or ? where it cannot be told).
    """
    if axes and (norms or activations or weights):
        raise UsageError(
            "--axes shows each step of the forward and cannot be combined with --norms, --activations "
            "or --weights",
            hint="Run `normdoctor show` once for each.",
        )
    from normdoctor.output.inventory import inventory, to_json, to_text
    from normdoctor.output.style import UNLIMITED

    style = make_style(color, quiet, verbose, width=UNLIMITED)
    specs, settings = make_settings(targets, config, isolated, **given)
    chosen = {"norm": norms, "activation": activations, "weight": weights}
    kinds = frozenset(kind for kind, wanted in chosen.items() if wanted) or frozenset(chosen)
    if axes:
        _show_forward(_facts(specs, settings), layout, style)
        return
    shown = [inventory(facts) for facts in _facts(specs, settings)]
    if layout == "json":
        click.echo(to_json(shown, kinds), nl=False)
    else:
        click.echo("\n".join(to_text(one, kinds, style) for one in shown), nl=False, color=style.color)


def _show_forward(found: Sequence[Facts], layout: str, style: Style) -> None:
    from normdoctor.output.forward import forward, to_json, to_text

    steps = [forward(facts) for facts in found]
    text = to_json(steps) if layout == "json" else "\n".join(to_text(one, style) for one in steps)
    click.echo(text, nl=False, color=style.color)


def _facts(specs: tuple[str, ...], settings: Settings) -> Sequence[Facts]:
    if settings.from_facts is not None:
        from normdoctor.running import load_facts

        return load_facts(settings.from_facts)
    if not specs:
        raise UsageError("nothing to show: expected a TARGET", hint="For example: normdoctor show model.py")
    from normdoctor import doctor

    return [facts for spec in specs for facts in doctor.facts_of(spec, settings)]
