"""The options that several commands share, and what is made of them."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from normdoctor.errors import UsageError
from normdoctor.output.style import Style, text_width, wants_color, wants_unicode

if TYPE_CHECKING:
    from normdoctor.config import Settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)
#: The values of NORMDOCTOR_LOG.
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def offering(what: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """What a shell offers: a function of `normdoctor.cli.completing`, which is imported when one asks."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from normdoctor.cli import completing

        return getattr(completing, f"complete_{what}")(ctx, param, incomplete)

    return complete


class NormChoice(click.Choice[str]):
    """A choice among norms; what is misspelt or abbreviated is answered with what may be meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Click's message, and a suggestion."""
        from normdoctor.normwords import near_norms

        hint = near_norms(str(value), [str(choice) for choice in self.choices])
        message = super().get_invalid_choice_message(value, ctx)
        return f"{message} {hint}" if hint else message


def combined(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Apply several option decorators, so that help lists them in this order."""
    return lambda function: functools.reduce(lambda done, add: add(done), reversed(decorators), function)


def selection_options(function: Decorated) -> Decorated:
    """`--select`, `--ignore`, `--extend-select`, `--preview`."""
    rules: dict[str, Any] = {"multiple": True, "metavar": "RULES", "shell_complete": offering("rules")}
    return combined(
        click.option("--select", **rules, help="Run only these: codes, prefixes (ND1), names, ALL."),
        click.option("--ignore", **rules, help="Do not run these."),
        click.option("--extend-select", **rules, help="Run these besides what is selected."),
        click.option("--preview", is_flag=True, help="Run rules that are in preview as well."),
    )(function)


def config_options(function: Decorated) -> Decorated:
    """`--config`, `--isolated`."""
    return combined(
        click.option("--config", type=FILE, help="Read this file, not the nearest pyproject.toml."),
        click.option("--isolated", is_flag=True, help="Read no configuration file."),
    )(function)


def input_options(function: Decorated) -> Decorated:
    """`--input`, `--device`, `--import-timeout`."""
    return combined(
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="SPEC",
            help="An input, e.g. 8,3,224,224 or ids=2,128:int64<50257 (repeatable).",
        ),
        click.option("--device", help="Where values are computed, if they are needed (cpu, cuda, ...)."),
        click.option(
            "--import-timeout",
            type=float,
            callback=_checked_timeout,
            metavar="SECONDS",
            help="Stop the import of a target's file after this time.",
        ),
    )(function)


def training_options(function: Decorated) -> Decorated:
    """`--loss`, `--optimizer`, `--reference`, `--weights`."""
    return combined(
        click.option(
            "--loss",
            metavar="LOSS",
            help="The loss that the output goes to: cross_entropy, train.py:loss_fn.",
        ),
        click.option(
            "--optimizer", metavar="FACTORY", help="What makes the optimizer, of the model or its parameters."
        ),
        click.option("--reference", metavar="TARGET", help="The model that TARGET is a copy or average of."),
        click.option(
            "--weights", type=FILE, help="Check with the weights of this checkpoint (never unpickled)."
        ),
    )(function)


def data_options(function: Decorated) -> Decorated:
    """`--data`, `--batches`, `--batch-size`."""
    return combined(
        click.option(
            "--data",
            metavar="LOADER",
            help="Batches for the measured rules: data.py:loader, pkg.data:make_loader, or synthetic.",
        ),
        click.option(
            "--batches",
            type=click.IntRange(min=1),
            metavar="N",
            help="Read this many batches of the data (default: 32).",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            metavar="N",
            help="The batch size of the training; synthetic batches have it.",
        ),
    )(function)


def look_options(function: Decorated) -> Decorated:
    """`--color`, `-q`, `-v`."""
    return combined(
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="When to colour; auto heeds NO_COLOR and FORCE_COLOR.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print findings only."),
        click.option(
            "-v",
            "--verbose",
            count=True,
            callback=_remember_verbosity,
            help="Print a line for each rule and target, and tracebacks of errors; -vv logs each step.",
        ),
    )(function)


def _checked_timeout(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    from normdoctor.config import check_timeout

    try:
        check_timeout(value)
    except UsageError as error:
        raise UsageError(f"--import-timeout: {error.message}") from error
    return value


def _remember_verbosity(ctx: click.Context, _: click.Parameter, value: int) -> int:
    ctx.find_root().meta["normdoctor.verbosity"] = value
    level = os.environ.get("NORMDOCTOR_LOG", "").upper()
    if level and level not in LOG_LEVELS:
        raise UsageError(f"NORMDOCTOR_LOG is {level.lower()}: expected {', '.join(LOG_LEVELS).lower()}")
    if value > 1 or level:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("normdoctor")
        logger.setLevel(level or logging.DEBUG)
        logger.handlers[:] = [handler]
    return value


def make_style(color: str, quiet: bool, verbose: int, *, width: int = 80) -> Style:
    """How to write to stdout."""
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other", hint="Give one of them.")
    return Style(
        color=wants_color(color, sys.stdout),
        unicode=wants_unicode(sys.stdout),
        width=text_width(sys.stdout, width),
        verbosity=-1 if quiet else verbose,
    )


def make_settings(
    targets: tuple[str, ...], config: Path | None, isolated: bool, **given: Any
) -> tuple[tuple[str, ...], Settings]:
    """The targets to check, and the settings: the configuration file's with the options over them."""
    from normdoctor.config import override
    from normdoctor.configfile import load_settings
    from normdoctor.findings import Confidence
    from normdoctor.selection import split_node_id, split_selectors

    if config is not None and isolated:
        raise UsageError("--config and --isolated contradict each other", hint="Give one of them.")
    settings = load_settings(config, isolated=isolated)
    for key, value in given.items():
        if value == "":  # as of an empty variable of a shell: not the same as leaving it out
            raise UsageError(f"--{key.replace('_', '-')} is empty", hint="Give it a value, or leave it out.")
    given = {key: value or None for key, value in given.items()}
    if given.get("min_confidence"):
        given["min_confidence"] = Confidence(given["min_confidence"])
    for key in ("select", "ignore", "extend_select", "fixable", "unfixable"):
        texts = given.get(key) or ()
        given[key] = split_selectors(texts)
        if texts and not given[key]:
            flag = "--" + key.replace("_", "-")
            raise UsageError(f"{flag} names no rule", hint="`normdoctor rules` lists every rule.")
    settings = override(settings, **given)
    only: dict[str, tuple[str, ...]] = {}
    whole: set[str] = set()
    specs = []
    for target in targets or settings.targets:
        spec, code = split_node_id(settings.aliases.get(target, target))
        specs.append(spec)
        if code:
            only[spec] = (*only.get(spec, ()), code)
        else:
            whole.add(spec)
    settings = override(settings, only={spec: only[spec] for spec in only if spec not in whole})
    chosen = (*settings.select, *settings.ignore, *settings.extend_select)
    for text in (*chosen, *settings.fixable, *settings.unfixable):
        _check_selector(text)
    return tuple(dict.fromkeys(specs)), settings


def _check_selector(text: str) -> None:
    from normdoctor.selection import parse_selector

    parse_selector(text)
