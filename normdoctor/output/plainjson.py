"""JSON for files and pipes: indented, and without characters that a terminal or a reader must not get."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from normdoctor.output.style import Style

#: DEL, C1 controls and the marks that reorder text; JSON itself escapes the other controls.
UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069<>]")
NOT_ASCII = re.compile("[^\x00-\x7e]|[<>]")


def to_text(payload: Any, style: Style) -> str:
    """Write JSON, indented; what a terminal must not get, or cannot show, is escaped.

    So are `<` and `>`: reports are put into web pages, where a script must not come out of a name.
    """
    encoded = msgspec.json.encode(_spoken(payload))
    text = msgspec.json.format(encoded, indent=2).decode()
    pattern = UNSAFE_IN_JSON if style.unicode else NOT_ASCII
    return pattern.sub(_escape, text) + "\n"


def plain(evidence: dict[str, Any]) -> Any:
    """Figures of any kind as plain data; sets are sorted, so that equal figures give equal bytes."""
    return msgspec.to_builtins(_ordered(evidence), enc_hook=str)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _ordered(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_ordered(item) for item in value), key=str)
    return value


def _spoken(value: Any) -> Any:
    """The same with lone surrogates, which no JSON may hold, written out as `\\ud800`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spoken(key): _spoken(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spoken(item) for item in value]
    return value


def _escape(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
