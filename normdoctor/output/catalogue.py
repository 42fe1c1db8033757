"""The rules for the reader: the table of all, and the page of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from normdoctor.output.style import Style
from normdoctor.output.table import table
from normdoctor.rules import all_rules
from normdoctor.rules.base import Rule, page_of, summary_of


def rules_table(off: Mapping[str, str], levels: Mapping[str, str], width: int = 120) -> str:
    """Every rule on a line, with its level here and whether it runs."""
    rows = [
        (
            rule.code,
            rule.name,
            levels.get(rule.code) or str(rule.severity),
            str(rule.confidence),
            "yes" if rule.fixable else "",
            ", ".join(sorted(rule.requires | rule.needs)),
            f"off: {off[rule.code]}" if rule.code in off else "on, preview" if rule.preview else "on",
        )
        for rule in all_rules()
    ]
    headers = ("code", "name", "severity", "confidence", "fix", "requires", "status")
    running = sum(rule.code not in off for rule in all_rules())
    whole = max(len(code) for code, *_ in rows)
    listed = table(rows, headers, width, least={"code": whole, "requires": 12, "status": 20, "name": 24})
    return f"{listed}\n\n{running} of {len(rows)} rules are on.\n"


def rules_json(off: Mapping[str, str]) -> str:
    """Every rule with its metadata and options, and why it is off."""
    rows = [
        {**metadata(rule), "on": rule.code not in off, "why_off": off.get(rule.code)} for rule in all_rules()
    ]
    return _json({"rules": rows})


def pages_json(rules: Iterable[type[Rule]], *, alone: bool) -> str:
    """The pages as JSON: one object for one rule, otherwise a list."""
    pages = [{**metadata(rule), "page": page_of(rule)} for rule in rules]
    return _json(pages[0] if alone else pages)


def metadata(rule: type[Rule]) -> dict[str, Any]:
    """What a rule states about itself."""
    return {
        "code": rule.code,
        "name": rule.name,
        "category": rule.category,
        "summary": summary_of(rule),
        "severity": str(rule.severity),
        "confidence": str(rule.confidence),
        "fixable": rule.fixable,
        "since": rule.since,
        "preview": rule.preview,
        "requires": sorted(rule.requires),
        "needs": sorted(rule.needs),
        "options": {name: default for name, _, default in options(rule)},
    }


def options(rule: type[Rule]) -> list[tuple[str, str, Any]]:
    """The options of a rule: the key in the configuration file, its type, its default."""
    return [
        (field.encode_name.replace("_", "-"), _type_name(field.type), msgspec.to_builtins(_default(field)))
        for field in msgspec.structs.fields(rule.Options)
    ]


def page(rule: type[Rule], style: Style) -> str:
    """The page of a rule for the terminal: a header line, the docstring, the options."""
    facts = [
        str(rule.severity),
        f"confidence {rule.confidence}",
        "fixable" if rule.fixable else "no automatic fix",
        f"since {rule.since}",
        *(["preview"] if rule.preview else []),
    ]
    lines = [style.paint(f"{rule.code} {rule.name}", "bold"), " . ".join(facts), ""]
    lines += _markdown(page_of(rule), style)
    if known := options(rule):
        lines += ["", style.paint("Options", "bold"), ""]
        lines += [f"  {name} ({kind}, default {default!r})" for name, kind, default in known]
        lines += ["", f"  Set them in [tool.normdoctor.options.{rule.code}]."]
    return "\n".join(lines)


def _markdown(text: str, style: Style) -> Iterable[str]:
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            word = line.strip("`").removeprefix("python").strip()
            if fenced and word:
                yield style.paint(f"  # {word}", "dim")
        elif fenced:
            yield f"    {style.clean(line)}".rstrip()
        elif heading := re.fullmatch(r"#+ (.*)", line):
            yield style.paint(heading[1], "bold")
        else:
            yield style.clean(line)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not getattr(kind, "__args__", ()) else str(kind)


def _json(payload: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(payload), indent=2).decode() + "\n"
