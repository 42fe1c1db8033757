"""The settings for the reader: every value with where it comes from, as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from normdoctor.config import Settings
from normdoctor.configfile import File


def settings_text(settings: Settings, sources: Mapping[str, str], file: Path | None) -> str:
    """A line for each key: `fail-on = "error"  # pyproject.toml`.

    `sources` maps keys to where their values come from; the others have their defaults.
    """
    lines = [f"# {file}" if file else "# no configuration file"]
    for key in File.__struct_encode_fields__:
        value, source = _value(settings, key), sources.get(key, "default")
        lines.append(f"# {key} is not set" if value is None else f"{key} = {_toml(value)}  # {source}")
    return "\n".join(lines) + "\n"


def _value(settings: Settings, key: str) -> Any:
    if key == "targets":
        return settings.aliases or list(settings.targets)
    if key == "inputs":
        return settings.target_inputs or list(settings.inputs)
    return getattr(settings, {"rules": "levels"}.get(key, key.replace("-", "_")))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(value.as_posix() if isinstance(value, Path) else str(value))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
