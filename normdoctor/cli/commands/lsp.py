"""`normdoctor lsp`: the language server."""

from __future__ import annotations

import click

from normdoctor.errors import UsageError


@click.command(short_help="Run the language server for editors, over standard input and output.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    metavar="SECONDS",
    help="Stop a check after this time (default: 120).",
)
@click.option("--on-save", is_flag=True, help="Check files when they are saved, not when they are opened.")
def command(timeout: float, on_save: bool) -> None:
    """Run the language server for editors, over standard input and output.

    A check imports the file, as `normdoctor check` does, in a process of its own.
    """
    try:
        from normdoctor.lsp.server import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise UsageError(
            "the language server needs pygls, which is not installed",
            hint="Install it with: pip install 'normdoctor[lsp]'",
        ) from error
    make_server(timeout, on_open=not on_save).start_io()
