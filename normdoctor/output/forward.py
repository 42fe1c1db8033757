"""The recorded forward, step by step: what each call returns, and what its axes stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from normdoctor.facts import Facts, Location, Node
from normdoctor.output.inventory import times
from normdoctor.output.paths import shown_path
from normdoctor.output.style import Style
from normdoctor.output.table import table

HEADERS = ("step", "layer", "what", "line", "output", "axes", "reads")
LEAST = {"layer": 20, "what": 12, "axes": 28, "source": 14, "reads": 5}
UNKNOWN = "?"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One call: `layer` is the module that is called, or the one in whose forward a function is."""

    step: int
    layer: str
    what: str
    output: tuple[int, ...]
    axes: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    location: Location | None = None


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """What a model computes."""

    target: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def forward(facts: Facts) -> Forward:
    """List the recorded forward."""
    steps = tuple(_step(node) for node in facts.nodes if node.op != "output")
    return Forward(target=facts.target, steps=steps, notes=facts.notes)


def _step(node: Node) -> Step:
    return Step(
        step=node.index,
        layer=node.module if node.module is not None else node.scope,
        what=node.kind if node.op != "placeholder" else f"input {node.name}",
        output=node.shape,
        axes=node.axes,
        reads=node.inputs,
        location=node.location,
    )


def to_text(found: Forward, style: Style) -> str:
    """Write the forward as a table that fits the terminal; an axis that is not known is `?`."""
    parts = [style.paint(style.clean(found.target), "bold")]
    parts += [f"{style.paint('note:', 'bold')} {style.clean(note)}" for note in found.notes]
    files = {step.location.file for step in found.steps if step.location}
    source = "source"
    if len(files) == 1:
        parts.append(f"source: {style.clean(shown_path(files.pop()))}")
        source = "line"
    if not found.steps:
        note = "the forward could not be recorded; `normdoctor check` says why"
        return "\n".join([*parts, f"{style.paint('note:', 'bold')} {note}"]) + "\n"
    headers = [source if name == "line" else name for name in HEADERS]
    cells = [[style.clean(cell) for cell in _cells(step, source)] for step in found.steps]
    parts += ["", table(cells, headers, style.width, right=("step", "line"), least=LEAST), ""]
    shaped = [step for step in found.steps if step.output]
    known = sum(1 for step in shaped if step.axes and all(step.axes))
    parts.append(f"{known:,} of {len(shaped):,} results have all axes labelled")
    return "\n".join(parts) + "\n"


def to_json(found: Sequence[Forward]) -> str:
    """Write forwards as JSON."""
    payload: dict[str, Any] = {"schema_version": 1, "models": list(found)}
    return msgspec.json.format(msgspec.json.encode(payload), indent=2).decode() + "\n"


def _cells(step: Step, source: str) -> list[str]:
    place = step.location
    where = "" if place is None else f"{shown_path(place.file)}:{place.line}"
    axes = step.axes or ("",) * len(step.output)
    return [
        str(step.step),
        step.layer or "(model)",
        step.what,
        where.rpartition(":")[2] if source == "line" else where,
        times(step.output) or "()",
        ", ".join(label or UNKNOWN for label in axes),
        " ".join(map(str, step.reads)),
    ]
