"""Renderings of a report: one file a format in `normdoctor.output.formats`, found by walking it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from normdoctor.errors import UsageError, near
from normdoctor.output.style import Style

if TYPE_CHECKING:
    from normdoctor.report import Report


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a report. Where `machine` is true, nothing else may stand beside it.

    `aside` does what belongs to the format and is no text of it; the command line calls it once.
    """

    name: str
    render: Callable[[Report, Style], str]
    machine: bool = False
    aside: Callable[[Report], None] | None = None


@cache
def format_names() -> tuple[str, ...]:
    """The names of all formats; those of the files, none of which is imported."""
    from normdoctor.output import formats

    names = (info.name.replace("_", "-") for info in pkgutil.iter_modules(formats.__path__))
    return tuple(sorted(names))


def get_format(name: str) -> Format:
    """The format with this name."""
    if name not in format_names():
        known = "Known are: " + ", ".join(format_names()) + "."
        hint = near(name, list(format_names()))
        raise UsageError(f"unknown output format `{name}`", hint=f"{hint} {known}" if hint else known)
    module = importlib.import_module(f"normdoctor.output.formats.{name.replace('-', '_')}")
    found: Format = module.FORMAT
    return found


def render(report: Report, name: str = "full", style: Style | None = None) -> str:
    """Write a report in a format, as text that ends with a newline unless it is empty."""
    return get_format(name).render(report, style or Style())
