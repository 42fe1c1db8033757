"""`normdoctor schema`: the JSON schemas of what is read and written."""

from __future__ import annotations

import click

from normdoctor.schemas import names, text


@click.command(short_help="Print the JSON schema of a report, the configuration, a baseline or facts.")
@click.argument("name", type=click.Choice(names()))
def command(name: str) -> None:
    """Print a JSON schema: for programs that read reports, and for editors.

    Reports get further keys within a version, so the schema of the report allows them. That of the
    configuration has the options of every rule, plugins' rules too.
    """
    click.echo(text(name), nl=False)
