"""`normdoctor config`: the keys of the configuration file, and their schema."""

from __future__ import annotations

import sys

import click

from normdoctor.cli.options import offering
from normdoctor.errors import UsageError, near


@click.command(short_help="Explain the keys of the configuration file.")
@click.argument("key", required=False, shell_complete=offering("keys"))
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON schema, for editors and checks.")
def command(key: str | None, as_schema: bool) -> None:
    """Explain the keys of [tool.normdoctor], all or one: type, default and meaning."""
    import msgspec

    from normdoctor.configschema import keys
    from normdoctor.output.style import UNLIMITED, text_width
    from normdoctor.output.table import table

    if as_schema:
        if key is not None:
            raise UsageError("--schema is that of all keys", hint="Leave the key out.")
        from normdoctor import schemas

        click.echo(schemas.text("config"), nl=False)
        return
    rows = [(name, kind, msgspec.json.encode(value).decode(), text) for name, kind, value, text in keys()]
    if key is None:
        listed = table(rows, ("key", "type", "default", "means"), text_width(sys.stdout, UNLIMITED))
        click.echo(listed)
        return
    for name, kind, value, meaning in rows:
        if name == key.removeprefix("tool.normdoctor.").replace("_", "-"):
            click.echo(f"{name}: {meaning}\n\ntype: {kind}\ndefault: {value}")
            return
    raise UsageError(f"unknown option `{key}`", hint=near(key, [row[0] for row in rows]))
