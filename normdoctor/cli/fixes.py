"""The options that change source: `--fix`, `--diff` and what goes with them, in the words of ruff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from normdoctor.cli.options import combined, offering
from normdoctor.errors import UsageError

if TYPE_CHECKING:
    from normdoctor.cli.reporting import Reporter
    from normdoctor.config import Settings
    from normdoctor.fixing.fixer import Outcome

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class FixOptions:
    """What was asked for."""

    fix: bool = False
    diff: bool = False
    unsafe_fixes: bool = False
    fix_only: bool = False
    show_fixes: bool = False
    exit_non_zero_on_fix: bool = False
    fixable: tuple[str, ...] = ()
    unfixable: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Is anything to be fixed, or shown as a diff?"""
        return self.fix or self.diff or self.fix_only


def fix_options(function: Decorated) -> Decorated:
    """`--fix`, `--diff`, `--unsafe-fixes`, `--fix-only`, `--show-fixes`, `--fixable`, ..."""
    rules: dict[str, Any] = {"multiple": True, "metavar": "RULES", "shell_complete": offering("rules")}
    return combined(
        click.option("--fix", is_flag=True, help="Apply fixes to the source files, and report what is left."),
        click.option("--diff", is_flag=True, help="Show what --fix would change, and write nothing."),
        click.option(
            "--unsafe-fixes", is_flag=True, help="Apply unsafe fixes too, which may change what it computes."
        ),
        click.option("--fix-only", is_flag=True, help="Apply fixes and report nothing that is left."),
        click.option("--show-fixes", is_flag=True, help="List the fixes that were applied."),
        click.option("--exit-non-zero-on-fix", is_flag=True, help="Exit with 1 if anything was fixed."),
        click.option("--fixable", **rules, help="Fix findings of these rules only."),
        click.option("--unfixable", **rules, help="Do not fix findings of these rules."),
    )(function)


def take(given: dict[str, Any]) -> FixOptions:
    """Take the options of this group out of those of a command."""
    return FixOptions(**{name: given.pop(name) for name in FixOptions.__slots__})


def check_options(options: FixOptions, settings: Settings, add_ignore: bool) -> None:
    """Raise UsageError for options that make no sense together."""
    if not options.active:
        return
    others = {
        "--add-ignore": add_ignore,
        "--from-facts": settings.from_facts is not None,
        "--save-facts": settings.save_facts is not None,
        "--write-baseline": settings.baseline_mode == "write",
        "--prune-baseline": settings.baseline_mode == "prune",
    }
    flag = "--diff" if options.diff else "--fix" if options.fix else "--fix-only"
    for option, given in others.items():
        if given:
            raise UsageError(f"{flag} and {option} contradict each other", hint="Give one of them.")


def apply_fixes(
    specs: tuple[str, ...], settings: Settings, options: FixOptions, reporter: Reporter
) -> Outcome:
    """Fix what the targets offer."""
    from normdoctor.fixing import demand_libcst

    demand_libcst()
    from normdoctor.fixing.fixer import fix_targets

    return fix_targets(
        specs,
        settings,
        unsafe=options.unsafe_fixes,
        wanted=settings.may_fix,
        write=not options.diff,
        on_result=None if options.diff or options.fix_only else reporter.on_result,
    )


def exit_code(options: FixOptions, outcome: Outcome) -> int:
    """As ruff: --diff fails if there is one, --fix-only never does, --fix if findings are left."""
    if outcome.report.exit_code == 2:
        return 2
    if options.diff:
        return int(bool(outcome.changes))
    if options.exit_non_zero_on_fix and outcome.fixed:
        return 1
    return 0 if options.fix_only else outcome.report.exit_code
