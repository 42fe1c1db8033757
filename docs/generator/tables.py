"""Tables inside of pages that are written by hand."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable

import click

from generator.markdown import code, table
from generator.rules import GROUPS, own_rules
from normdoctor.cli import main
from normdoctor.configschema import keys as keys_of_file
from normdoctor.output.catalogue import options as options_of
from normdoctor.rewriting.conversions import all_conversions


def keys() -> str:
    """The keys of the configuration file, and which of them are no options."""
    check = main.get_command(click.Context(main), "check")
    assert check is not None
    flags = {flag.removeprefix("--") for option in check.params for flag in option.opts}
    known = keys_of_file()
    rows = [
        (code(name), about, kind, "none" if default is None else code(json.dumps(default)))
        for name, kind, default, about in known
    ]
    without = [code(name) for name, *_ in known if name not in flags | {"targets", "inputs"}]
    said = (
        "On the command line, `targets` is `TARGET` and `inputs` is `--input`. "
        f"{', '.join(without[:-1])} and {without[-1]} are no options; every other key is one of its name."
    )
    return f"{table(('key', 'means', 'type', 'default'), rows)}\n\n{said}"


def groups() -> str:
    """What the rules are about, by the start of their codes."""
    rows = []
    for prefix, title in GROUPS.items():
        count = sum(rule.code.startswith(prefix) for rule in own_rules())
        rows.append((prefix, title, str(count)))
    return table(("codes", "about", "rules"), rows)


def conversions() -> str:
    """The conversions of `normdoctor.convert`."""
    rows = []
    for one in all_conversions().values():
        about = (inspect.getdoc(sys.modules[one.__module__]) or "").partition("`: ")[2].rstrip(".")
        names = code(one.spec) + (f" (also {', '.join(map(code, one.aliases))})" if one.aliases else "")
        rows.append((names, ", ".join(sorted(one.exact)), about))
    return table(("spec", "exact in", "what happens"), rows)


def options() -> str:
    """Every option of every rule with its default."""
    rows = [
        (f"[{rule.code}](rules/{rule.name}.md) {rule.name}", code(name), kind, code(json.dumps(default)))
        for rule in own_rules()
        for name, kind, default in options_of(rule)
    ]
    return table(("rule", "option", "type", "default"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "keys": keys,
    "groups": groups,
    "conversions": conversions,
    "options": options,
}
