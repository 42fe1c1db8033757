"""`--output-format` and `--output-file`, which may be given several times, in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from normdoctor.errors import UsageError, brief

#: Options whose value is optional, and then has to stand behind `=`.
OPTIONAL_VALUE = ("--add-ignore",)


@dataclass(frozen=True, slots=True)
class Output:
    """One report to write: its format, and the file, or None for stdout."""

    format: str
    file: Path | None = None


class PairingCommand(click.Command):
    """Remembers in which order formats and files were given: a file belongs to the format before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual, after noting the order."""
        end = args.index("--") if "--" in args else len(args)
        args = [f"{arg}=" if arg in OPTIONAL_VALUE else arg for arg in args[:end]] + args[end:]
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given = {name: iter(values.get(name) or ()) for name in ("output_format", "output_file")}
        sequence = [
            (param.name, str(next(given[param.name])))
            for param in order
            if param.name in given and param.name
        ]
        ctx.meta["normdoctor.outputs"] = sequence
        return super().parse_args(ctx, args)


def outputs(ctx: click.Context, default: str, formats: Sequence[str]) -> tuple[Output, ...]:
    """What to write where; `formats` are those of the options or the environment, `default` the file's.

    A file belongs to the format before it that has none yet, otherwise to the next one.
    """
    sequence: list[tuple[str, str]] = ctx.meta.get("normdoctor.outputs", [])
    if not any(name == "output_format" for name, _ in sequence):
        sequence = [*(("output_format", name) for name in formats or (default,)), *sequence]
    found: list[list[Any]] = []
    waiting: Path | None = None
    for name, value in sequence:
        if name == "output_format":
            found.append([value, waiting])
            waiting = None
        elif found and found[-1][1] is None:
            found[-1][1] = Path(value)
        elif waiting is None:
            waiting = Path(value)
        else:
            raise _loose(waiting)
    if waiting is not None:
        raise _loose(waiting)
    made = tuple(Output(*pair) for pair in found)
    _check(made)
    return made


def _loose(file: Path) -> UsageError:
    return UsageError(
        f"no format goes with --output-file {file}",
        hint="Give them in pairs: --output-format sarif --output-file out.sarif.",
    )


def _check(made: tuple[Output, ...]) -> None:
    loose = [output.format for output in made if output.file is None]
    if len(loose) > 1:
        raise UsageError(
            f"{len(loose)} reports would go to stdout: {', '.join(loose)}",
            hint="Give all but one of them an --output-file.",
        )
    files = [output.file for output in made if output.file is not None]
    for file in files:
        if [real(other) for other in files].count(real(file)) > 1:
            raise UsageError(f"two reports would go to {file.name}", hint="Name another --output-file.")
        spare_source(file)


def real(file: Path) -> Path:
    """The file behind all links, so that two names of one file are seen to be the same."""
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # links that go round
        raise UsageError(f"cannot write to {file}: {brief(error)}") from error


def keep_apart(written: Mapping[str, Path | None], read: Mapping[str, Path | None]) -> None:
    """Raise UsageError where one file would be written twice, or written over what is read."""
    taken = {real(file): what for what, file in read.items() if file is not None}
    for what, file in written.items():
        if file is None or (file.exists() and not file.is_file()):  # a terminal or a pipe takes both
            continue
        other = taken.setdefault(real(file), what)
        if other != what:
            raise UsageError(f"{other} and {what} would be one file: {file}", hint="Name two files.")


def spare_source(file: Path) -> None:
    """Raise UsageError for a report that would take the place of source, also through a link."""
    if any(name.suffix.lower() in (".py", ".ipynb", ".toml") for name in (file, real(file))):
        raise spare(file)


def spare(file: Path) -> UsageError:
    """The error for a report that would take the place of source."""
    return UsageError(
        f"{file.name} would be overwritten: expected a file for a report, not for source",
        hint="Name it report.txt or report.json.",
    )
