"""The catalogue: every rule is one class in one file of a category folder, found by walking them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from normdoctor.errors import ConfigError
from normdoctor.rules.base import Rule
from normdoctor.rules.plugins import entry_points

ENTRY_POINT_GROUP = "normdoctor.rules"


@cache
def all_rules() -> tuple[type[Rule], ...]:
    """Every rule of normdoctor and of installed plugins, ordered by code.

    A plugin exports a `Rule` subclass, or a module that holds some, under the entry-point group
    `normdoctor.rules`. One that cannot be loaded is an error, never a silent gap.
    """
    found: dict[str, type[Rule]] = {}
    for info in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
        if not info.ispkg:
            _collect(importlib.import_module(info.name), found)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            _collect(entry.load(), found)
        except Exception as error:
            raise ConfigError(
                f"the plugin `{entry.name}` ({entry.value}) cannot be loaded: {error}",
                hint="Uninstall or mend it; normdoctor does not run with a part of its rules missing.",
            ) from error
    return tuple(found[code] for code in sorted(found))


def _collect(source: object, found: dict[str, type[Rule]]) -> None:
    values = [source] if isinstance(source, type) else list(vars(source).values())
    for value in values:
        if isinstance(value, type) and issubclass(value, Rule) and value.code:
            known = found.setdefault(value.code, value)
            if known is not value:
                raise ConfigError(f"two rules have the code {value.code}: {known} and {value}")


def find_rule(key: str) -> type[Rule] | None:
    """The rule with this code or name, upper or lower case; None where there is none."""
    lowered = key.lower()
    return next((r for r in all_rules() if lowered in (r.code.lower(), r.name)), None)


def load_rule(key: str) -> type[Rule] | None:
    """As `find_rule`; of the catalogue's own rules only the file that holds this one is imported."""
    for info in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
        file = Path(getattr(info.module_finder, "path", ""), info.name.rpartition(".")[2] + ".py")
        if info.ispkg or not file.is_file():
            continue
        if file.stem == key.lower().replace("-", "_") or f'code = "{key.upper()}"' in file.read_text("utf-8"):
            found: dict[str, type[Rule]] = {}
            _collect(importlib.import_module(info.name), found)
            for rule in found.values():
                if key.lower() in (rule.code.lower(), rule.name):
                    return rule
    return find_rule(key)
