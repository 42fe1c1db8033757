"""The inventory of a model as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from normdoctor.output.paths import shown_path
from normdoctor.output.style import Style
from normdoctor.output.table import table
from normdoctor.views.inventory import Inventory, Row, inventory, times, worded

__all__ = ["inventory", "times", "to_json", "to_text"]

HEADERS = (
    *("layer", "what", "line", "output", "weights", "starts as", "settings", "before", "after", "params"),
)
#: Columns are not shortened below these widths.
LEAST = {
    "layer": 20,
    "what": 11,
    "weights": 12,
    "starts as": 30,
    "settings": 23,
    "source": 16,
    "before": 11,
    "after": 11,
}
TITLES = {
    "norm": ("norm", "norms"),
    "activation": ("activation", "activations"),
    "weight": ("layer with weights", "layers with weights"),
}


def to_text(found: Inventory, kinds: Collection[str], style: Style) -> str:
    """Write the inventory as a table that fits the terminal, with totals below."""
    rows = [row for row in found.rows if row.kind in kinds]
    files = {row.location.file for row in rows if row.location}
    parts = [style.paint(style.clean(found.target), "bold")]
    parts += [f"input: {style.clean(text)}" for text in found.inputs]
    parts += [
        f"{style.paint('note:', 'bold')} {style.clean(note)}"
        for note in found.notes
        if not (found.inputs and note.startswith("inputs "))
    ]
    if not found.recorded:
        parts.append(
            f"{style.paint('note:', 'bold')} the forward could not be recorded, so neither shapes "
            "nor neighbours are known; `normdoctor check` says why"
        )
    if len(files) == 1:
        parts.append(f"source: {style.clean(shown_path(files.pop()))}")
        source = "line"
    else:
        source = "source"
    if rows:
        headers = [source if name == "line" else name for name in HEADERS]
        cells = [[style.clean(cell) for cell in _cells(row, found, source, kinds)] for row in rows]
        parts += ["", table(cells, headers, style.width, right=("line", "params"), least=LEAST), ""]
    return "\n".join([*parts, *_totals(found, rows, kinds)]) + "\n"


def to_json(found: Sequence[Inventory], kinds: Collection[str]) -> str:
    """Write inventories as JSON."""
    models = [
        msgspec.structs.replace(one, rows=tuple(row for row in one.rows if row.kind in kinds))
        for one in found
    ]
    payload = {"schema_version": 1, "models": models}
    return msgspec.json.format(msgspec.json.encode(payload, enc_hook=str), indent=2).decode() + "\n"


def _cells(row: Row, found: Inventory, source: str, kinds: Collection[str]) -> list[str]:
    values = "activation" not in kinds  # weights and norms alone: what they hold, in place of neighbours
    place = row.location
    where = "" if place is None else f"{shown_path(place.file)}:{place.line}"
    words = [f"called {row.calls} times"] if row.calls > 1 else []
    words += ["never called"] if row.calls == 0 and found.recorded else []
    words += [_setting(name, value) for name, value in row.settings.items()]
    if row.kind == "norm" and row.mode not in ("", found.mode):
        words.append(row.mode)
    return [
        row.layer or "(model)",
        row.what,
        where.rpartition(":")[2] if source == "line" else where,
        times(row.output),
        _weights(row.weights),
        _initial(row.initial) if values else "",
        ", ".join(words),
        "" if values else row.before,
        "" if values else row.after,
        f"{row.parameters:,}" if row.parameters else "",
    ]


def _weights(weights: dict[str, tuple[int, ...]]) -> str:
    """`16x6x5x5 + 16` for a weight and a bias; other parameters are named, many are counted."""
    if set(weights) <= {"weight", "bias"}:
        return " + ".join(times(weights[name]) for name in ("weight", "bias") if name in weights)
    if len(weights) > 2:
        return f"{len(weights)} tensors"
    return ", ".join(f"{name} {times(shape)}" for name, shape in weights.items())


def _initial(initial: dict[str, str]) -> str:
    """`normal, std 0.02; bias zeros`: the weight first, the other parameters by name."""
    if len(set(initial.values())) == 1 and len(initial) > 2:
        return f"all {next(iter(initial.values()))}"
    words = [initial["weight"]] if "weight" in initial else []
    words += [f"{name} {text}" for name, text in initial.items() if name != "weight"]
    return "; ".join(words)


def _setting(name: str, value: Any) -> str:
    if name == "affine":
        return "not affine"
    if name == "track_running_stats":
        return "batch statistics"
    return f"{name} {worded(value)}"


def _totals(found: Inventory, rows: Sequence[Row], kinds: Collection[str]) -> list[str]:
    lines = []
    for kind, (one, many) in TITLES.items():
        if kind in kinds:
            counted = Counter(row.what for row in rows if row.kind == kind)
            named = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
            detail = ", ".join(f"{count} {what}" for what, count in named)
            lines.append(
                f"{counted.total()} {one if counted.total() == 1 else many}"
                + (f": {detail}" if detail else "")
            )
    frozen = found.parameters - found.trainable
    frost = f", {frozen:,} of them frozen" if frozen else ""
    buffers = f"; {found.buffers:,} numbers in buffers" if found.buffers else ""
    noun = "parameter" if found.parameters == 1 else "parameters"
    mode = f"; in {found.mode} mode" if found.mode else ""
    lines.append(f"{found.parameters:,} {noun}{frost}{buffers}{mode}")
    return lines
