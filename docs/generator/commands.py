"""The reference of the command line, from what each command says of itself."""

from __future__ import annotations

import inspect
import re

import click

from generator.markdown import NOTICE, code, fence, table
from normdoctor.cli import main

INTRO = """\
`normdoctor COMMAND --help` prints what stands here. [Configuration](configuration.md) says which of the
options have a key in the configuration file, and what wins; [Output](output.md#exit-codes) has the exit
codes.
"""


def page() -> str:
    """The page of all commands."""
    context = click.Context(main, info_name="normdoctor", **main.context_settings)
    parts = [NOTICE, "# Command line", INTRO.strip(), "## normdoctor", _text(main)]
    parts.append(_options(main, context))
    names = main.list_commands(context)
    rows = []
    for name in names:
        command = main.get_command(context, name)
        assert command is not None
        rows.append((f"[`normdoctor {name}`](#normdoctor-{name})", command.get_short_help_str(200)))
    parts.append(table(("command", ""), rows))
    for name in names:
        command = main.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        usage = f"normdoctor {name} {' '.join(command.collect_usage_pieces(inner))}"
        parts += [f"## normdoctor {name}", fence("text", usage), _text(command)]
        parts.append(_options(command, inner))
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(command: click.Command) -> str:
    """The help text as Markdown; blocks that keep their lines become code."""
    blocks = inspect.cleandoc(command.help or "").split("\f")[0].split("\n\n")
    return "\n\n".join(
        fence("text", block.removeprefix("\b\n"))
        if block.startswith("\b")
        else re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", " ".join(block.split()))
        for block in blocks
    )


def _options(command: click.Command, context: click.Context) -> str:
    rows = [
        (_names(option, context), _help(option))
        for option in command.get_params(context)
        if isinstance(option, click.Option) and not option.hidden
    ]
    return table(("option", "what it does"), rows)


def _names(option: click.Option, context: click.Context) -> str:
    """All flags, and the name of the value behind the last one."""
    flags = sorted((*option.opts, *option.secondary_opts), key=len)
    plain = option.is_flag or option.count or isinstance(option.type, click.Choice)
    value = "" if plain else option.make_metavar(context)
    joint = "" if value.startswith("[") else " "
    flags[-1] += f"{joint}{value}" if value else ""
    return ", ".join(code(flag) for flag in flags)


def _help(option: click.Option) -> str:
    text = re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", (option.help or "").replace("<", "&lt;"))
    said = [text]
    if isinstance(option.type, click.Choice):
        said.append(f"One of {', '.join(code(choice) for choice in option.type.choices)}.")
    plain = isinstance(option.default, str | int | float) and not isinstance(option.default, bool)
    if plain and not (option.is_flag or option.count):
        said.append(f"Default: {code(option.default)}.")
    if option.multiple and "repeatable" not in text:
        said.append("Repeatable.")
    if option.envvar:
        said.append(f"Environment variable: {code(option.envvar)}.")
    return " ".join(said)
