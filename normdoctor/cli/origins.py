"""`--show-settings`: where each value of a run comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from normdoctor.config import Settings

#: Options that set the key of another name.
KEYS = {"exit-zero": "fail-on"}
#: Keys to which an option adds, and what sets a file's values of them aside.
ADDED = {
    "ignore": "--select",
    "extend-select": "--select",
    "unfixable": "--fixable",
}


def show_settings(settings: Settings, config: Path | None, isolated: bool, formats: tuple[str, ...]) -> None:
    """Print every key with its value and its source."""
    from normdoctor.configfile import given_keys
    from normdoctor.output.settings import settings_text

    file, listed = given_keys(config, isolated=isolated)
    name = file.name if file else ""
    options = _options(click.get_current_context())
    sources = dict.fromkeys(listed, name) | options
    for key, other in ADDED.items():
        if key not in listed:
            continue
        if other in options.values():
            sources[key] = options.get(key, f"{name}, set aside by {other}")
        elif key in options:
            sources[key] = f"{name}, {options[key]}"
    if "--select" in options.values() and "rules" in listed:
        sources["rules"] = f"{name}, less what --select sets aside"
    if "targets" in options:
        settings = replace(settings, aliases={})
    shown = replace(settings, output_format=formats[0]) if formats else settings
    click.echo(settings_text(shown, sources, file), nl=False)


def _options(ctx: click.Context) -> dict[str, str]:
    """Key to the option or variable that gives it."""
    found = {}
    for parameter in ctx.command.params:
        origin = ctx.get_parameter_source(parameter.name or "")
        key = (parameter.name or "").replace("_", "-")
        if origin is ParameterSource.COMMANDLINE:
            label = parameter.opts[0] if isinstance(parameter, click.Option) else "command line"
            found[KEYS.get(key, key)] = label
        elif origin is ParameterSource.ENVIRONMENT:
            found[key] = str(parameter.envvar)
    return found
