"""The group of commands: found by their files, imported when called, and one way to end in error."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import traceback
import warnings
from typing import Any

import click

import normdoctor
from normdoctor.errors import NormDoctorError, UsageError, brief, near

#: What every command that fails, is misused or is interrupted exits with.
EXIT_ERROR = 2


class LazyGroup(click.Group):
    """A group whose commands are the files of `normdoctor.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the files."""
        from normdoctor.cli import commands

        return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"normdoctor.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant, or say which there are."""
        name = args[0] if args and not ctx.resilient_parsing else ""
        if name and not name.startswith("-") and name not in self.list_commands(ctx):
            hint = near(name, self.list_commands(ctx))
            if hint is None and (name.endswith(".py") or ":" in name):
                hint = f"To check it: normdoctor check {name}"
            fail(f"no such command: {name}", hint or "`normdoctor --help` lists the commands.")
            ctx.exit(EXIT_ERROR)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever it raises becomes one clear message and exit code 2."""
        # Torch says so once in each process without numpy, which is no fault of the user's.
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        try:
            _stand_somewhere()
            return super().invoke(ctx)
        except NormDoctorError as error:
            _trace(ctx, error)
            fail(error.message, error.hint)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_ERROR)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BaseException as error:  # also a SystemExit, which can only come from a model's own code
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            _trace(ctx, error)
            what = f"internal error: {brief(error)}"
            fail(what, "This is a fault of normdoctor; please report it. -v shows the traceback.")
            ctx.exit(EXIT_ERROR)


def fail(message: str, hint: str | None = None) -> None:
    """Print an error and what to do about it to stderr, without terminal controls."""
    from normdoctor.output.style import Style

    style = Style()
    lines = [f"Error: {message}", *(f"  {line}" for line in (hint or "").splitlines())]
    for line in "\n".join(lines).splitlines():
        click.echo(style.clean(line), err=True)


def _stand_somewhere() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            "the current folder does not exist any more", hint="Change to one that does."
        ) from error


def _trace(ctx: click.Context, error: BaseException) -> None:
    if ctx.find_root().meta.get("normdoctor.verbosity", 0) > 0:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def version_option() -> click.Option:
    """`--version`, `-V`."""

    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"normdoctor {normdoctor.__version__}")
            ctx.exit()

    return click.Option(
        ["-V", "--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
    )
