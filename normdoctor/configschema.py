"""The configuration as data: its JSON schema for editors, and a table of its keys."""

from __future__ import annotations

from typing import Any

import msgspec

from normdoctor.config import FAIL_ON, LEVELS
from normdoctor.configfile import ROLES, File
from normdoctor.findings import Confidence
from normdoctor.output import format_names
from normdoctor.rules import all_rules
from normdoctor.rules.base import Rule, summary_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The JSON schema of `normdoctor.toml` and of `[tool.normdoctor]`, with the options of every rule."""
    (_,), components = msgspec.json.schema_components((File,), ref_template="#/$defs/{name}")
    found: dict[str, Any] = components["File"]
    properties = found["properties"]
    choices = {"fail-on": FAIL_ON, "min-confidence": tuple(Confidence), "output-format": format_names()}
    for key, values in choices.items():
        properties[key]["enum"] = [str(value) for value in values]
    properties["roles"]["additionalProperties"] = {"enum": list(ROLES)}
    level = {"enum": list(LEVELS)}
    properties["rules"] |= {
        "properties": {
            key: {**level, "description": summary_of(rule)} for rule in all_rules() for key in _keys(rule)
        },
        "additionalProperties": False,
    }
    tables = {key: _options(rule) for rule in all_rules() for key in _keys(rule)}
    properties["options"] |= {
        "properties": {key: table for key, table in tables.items() if table["properties"]},
        "additionalProperties": False,
    }
    found["additionalProperties"] = False
    return {"$schema": DIALECT, "title": "normdoctor", "description": "The settings of normdoctor."} | {
        key: value for key, value in found.items() if key not in ("title", "description")
    }


def _keys(rule: type[Rule]) -> tuple[str, str]:
    """A rule is named by its code or by its name, everywhere."""
    return rule.code, rule.name


def _options(rule: type[Rule]) -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components((rule.Options,), ref_template="#/$defs/{name}")
    found: dict[str, Any] = components[rule.Options.__name__]
    kebab = {name.replace("_", "-"): value for name, value in found["properties"].items()}
    return {"type": "object", "properties": kebab, "additionalProperties": False}


def keys() -> list[tuple[str, str, Any, str]]:
    """Every key of the configuration: its name, its type, its default, and what it means."""
    properties = schema()["properties"]
    return [
        (name, _type_of(properties[name]), properties[name].get("default"), properties[name]["description"])
        for name in File.__struct_encode_fields__
    ]


def _type_of(found: dict[str, Any]) -> str:
    if "enum" in found:
        return ", ".join(found["enum"])
    if "anyOf" in found:
        return " or ".join(_type_of(one) for one in found["anyOf"] if one.get("type") != "null")
    words = {"array": "list", "object": "table", "boolean": "bool"}
    return words.get(found["type"], str(found["type"]))
