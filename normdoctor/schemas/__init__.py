"""JSON schemas of the files that normdoctor reads and writes; they lie beside this file, as `NAME.json`.

They are made from the types that read and write the files. After a change of those, write them again:
`python -m normdoctor.schemas`. A test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from normdoctor.configschema import DIALECT
from normdoctor.configschema import schema as config_schema

FOLDER = Path(__file__).parent
#: The version of each layout; a new one is another schema.
VERSION = 1


def schema(name: str) -> dict[str, Any]:
    """The schema of this name, as plain data.

    Raises:
        KeyError: There is none.
    """
    found = _MAKERS[name]()
    head = {"$schema": DIALECT, "$id": f"urn:normdoctor:{name}:{VERSION}", "title": f"normdoctor {name}"}
    return head | {key: value for key, value in found.items() if key not in head}


def names() -> tuple[str, ...]:
    """The schemas that there are."""
    return tuple(_MAKERS)


def text(name: str) -> str:
    """The schema as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(schema(name)), indent=2).decode() + "\n"


def _report() -> dict[str, Any]:
    from normdoctor.output.layout import Layout

    return _opened(msgspec.json.schema(Layout))


def _facts() -> dict[str, Any]:
    from normdoctor.facts import Facts

    return _opened(msgspec.json.schema(Facts | list[Facts])) | {
        "description": "What `check --save-facts` writes: the facts of one model, or a list of them."
    }


def _baseline() -> dict[str, Any]:
    from normdoctor.baseline import BaselineFile

    return _opened(msgspec.json.schema(BaselineFile))


def _opened(found: dict[str, Any]) -> dict[str, Any]:
    """The schema with the top object at the top, which editors show more of than of a reference."""
    top = found.pop("$ref", None)
    if top is None:
        return found
    defined = found.pop("$defs")
    own: dict[str, Any] = defined.pop(top.rpartition("/")[2])
    return own | ({"$defs": defined} if defined else {})


_MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "report": _report,
    "config": config_schema,
    "baseline": _baseline,
    "facts": _facts,
}
