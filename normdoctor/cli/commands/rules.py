"""`normdoctor rules`: every rule, and whether it runs here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from normdoctor.cli.options import config_options, make_settings, selection_options


@click.command(short_help="List every rule and whether it runs.")
@click.option("--output-format", "layout", type=click.Choice(["text", "json"]), default="text")
@selection_options
@config_options
def command(layout: str, config: Path | None, isolated: bool, **given: Any) -> None:
    """List every rule, whether it runs with this configuration, and if not, why."""
    from normdoctor.output.catalogue import rules_json, rules_table
    from normdoctor.output.style import UNLIMITED, text_width

    _, settings = make_settings((), config, isolated, **given)
    off = settings.selection().off
    click.echo(
        rules_json(off)
        if layout == "json"
        else rules_table(off, settings.levels, text_width(sys.stdout, UNLIMITED)),
        nl=False,
    )
