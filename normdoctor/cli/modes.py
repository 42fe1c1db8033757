"""The options that make a check write: the baseline, and comments in the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from normdoctor.cli.options import FILE, combined
from normdoctor.errors import UsageError

if TYPE_CHECKING:
    from normdoctor.config import Settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def baseline_options(function: Decorated) -> Decorated:
    """`--baseline`, `--write-baseline`, `--prune-baseline`."""
    return combined(
        click.option(
            "--baseline", type=FILE, help="Findings that this file knows are counted and fail nothing."
        ),
        click.option("--write-baseline", is_flag=True, help="Write all findings to the baseline."),
        click.option("--prune-baseline", is_flag=True, help="Remove from the baseline what is gone."),
    )(function)


def suppression_options(function: Decorated) -> Decorated:
    """`--ignore-suppressions`, `--add-ignore`."""
    return combined(
        click.option("--ignore-suppressions", is_flag=True, help="Suppression comments silence nothing."),
        click.option(
            "--add-ignore",
            metavar="[=REASON]",
            help="Write a suppression comment for every finding, with this reason.",
        ),
    )(function)


def baseline_mode(write: bool, prune: bool) -> str | None:
    """What becomes of the baseline; None where no option says."""
    if write and prune:
        raise UsageError(
            "--write-baseline and --prune-baseline contradict each other", hint="Give one of them."
        )
    return "write" if write else "prune" if prune else None


def check_modes(settings: Settings, add_ignore: bool) -> None:
    """Raise UsageError for options that make no sense together."""
    if settings.baseline_mode != "read" and settings.baseline is None:
        raise UsageError(
            f"--{settings.baseline_mode}-baseline needs to know the file",
            hint="Give it with --baseline FILE, or as `baseline` in the configuration file.",
        )
    if not add_ignore:
        return
    others = {
        "--write-baseline": settings.baseline_mode == "write",
        "--ignore-suppressions": settings.ignore_suppressions,
        "--from-facts": settings.from_facts is not None,
    }
    for option, given in others.items():
        if given:
            raise UsageError(f"--add-ignore and {option} contradict each other", hint="Give one of them.")
