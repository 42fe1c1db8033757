"""The inventory of a model: every norm, activation and layer with weights, in execution order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from normdoctor.census import count_parameters, within
from normdoctor.facts import Facts, Location, ModuleFact, Node
from normdoctor.graph import Graph
from normdoctor.output.paths import shown_path
from normdoctor.output.style import Style
from normdoctor.output.table import table

#: Role of a node or module to the kind of row that it makes.
KINDS = {"norm": "norm", "activation": "activation", "softmax": "activation", "linear": "weight"}
#: Settings worth a word, in this order.
SETTINGS = (
    *("num_groups", "normalized_shape", "eps", "momentum", "negative_slope", "approximate", "dim"),
    *("stride", "padding", "groups", "p"),
)
#: What most users leave alone is not worth a word.
USUAL = {"stride": (1, [1, 1], [1]), "padding": (0, [0, 0], [0]), "groups": (1,), "approximate": ("none",)}
HEADERS = ("layer", "what", "line", "output", "settings", "before", "after", "parameters")
TITLES = {"norm": "norms", "activation": "activations", "weight": "layers with weights"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One layer or call. `calls` is 0 for a layer that the recorded forward never used."""

    kind: str
    layer: str
    what: str
    location: Location | None = None
    output: tuple[int, ...] = ()
    settings: dict[str, Any] = {}
    weights: dict[str, tuple[int, ...]] = {}
    mode: str = ""
    before: str = ""
    after: str = ""
    parameters: int = 0
    calls: int = 1


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a model holds."""

    target: str
    rows: tuple[Row, ...]
    inputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    recorded: str = ""
    parameters: int = 0
    trainable: int = 0
    buffers: int = 0


def inventory(facts: Facts) -> Inventory:
    """Take the inventory of a model."""
    return Inventory(
        target=facts.target,
        rows=tuple(_Rows(facts).build()),
        inputs=tuple(f"{i.name} {times(i.tensor.shape)} {i.tensor.dtype} ({i.source})" for i in facts.inputs),
        notes=facts.notes,
        recorded=facts.recorded,
        parameters=count_parameters(facts),
        trainable=count_parameters(facts, trainable=True),
        buffers=sum(p.tensor.size for p in facts.parameters if p.kind == "buffer"),
    )


class _Rows:
    """Gathers the rows of one model: one for each layer or place of a call, however often it runs."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.graph = Graph(facts)
        #: Norms whose forward is the user's own: their inner steps are one row.
        self.composite = [m.path for m in facts.modules if m.role in ("norm", "activation") and not m.leaf]

    def build(self) -> list[Row]:
        steps: dict[tuple[Any, ...], list[Node]] = {}
        for node in self.facts.nodes:
            outer = self.outer(node)
            if outer is not None:
                steps.setdefault((outer,), []).append(node)
            elif node.module is not None and (self.kind(node.role) or node.parameters):
                steps.setdefault((node.module,), []).append(node)
            elif self.kind(node.role):
                steps.setdefault((node.scope, node.kind, node.location), []).append(node)
        rows = [self.row(key, nodes) for key, nodes in steps.items()]
        seen = {key[0] for key in steps if len(key) == 1}
        rows += [self.idle(module) for module in self.facts.modules if self.is_idle(module, seen)]
        return rows

    def outer(self, node: Node) -> str | None:
        """The hand-written norm or activation in whose forward a node stands."""
        inside = (p for p in self.composite if node.scope == p or within(node.scope, p))
        return min(inside, key=len, default=None)

    def row(self, key: tuple[Any, ...], nodes: list[Node]) -> Row:
        first, last = nodes[0], nodes[-1]
        module = self.graph.modules.get(key[0]) if len(key) == 1 else None
        role = module.role if module and module.role in KINDS else first.role
        calls = len({node.call for node in nodes}) if module and not module.leaf else len(nodes)
        before = self.graph.source(first, alone=False)
        what = module.type if module else first.kind
        return Row(
            kind=self.kind(role) or "weight",
            layer=module.path if module else first.scope,
            what=what if not module or module.base in ("", what) else f"{what} ({module.base})",
            location=(module.origin if module else None) or first.location,
            output=last.shape,
            settings=self.settings(module, first),
            weights=self.weights(module),
            mode=self.mode(module, first),
            before=self.name(before) if before else "",
            after=", ".join(dict.fromkeys(self.name(node) for node in self.graph.readers(last))),
            parameters=self.size(module.path) if module else 0,
            calls=calls,
        )

    def idle(self, module: ModuleFact) -> Row:
        return Row(
            kind=self.kind(module.role) or "weight",
            layer=module.path,
            what=module.type,
            location=module.origin,
            settings=self.settings(module, None),
            weights=self.weights(module),
            mode=self.mode(module, None),
            parameters=self.size(module.path),
            calls=0,
        )

    def is_idle(self, module: ModuleFact, seen: set[str]) -> bool:
        if module.path in seen or any(within(module.path, p) for p in (*self.composite, *seen)):
            return False
        return bool(self.kind(module.role) or self.weights(module))

    def name(self, node: Node) -> str:
        outer = self.outer(node)
        module = self.graph.modules.get(outer) if outer is not None else self.graph.module_of(node)
        return module.type if module else node.kind

    @staticmethod
    def kind(role: str) -> str | None:
        return KINDS.get(role)

    def settings(self, module: ModuleFact | None, node: Node | None) -> dict[str, Any]:
        known = {**(module.config if module else {}), **(node.config if node else {})}
        return {name: known[name] for name in SETTINGS if name in known and not _usual(name, known[name])}

    def mode(self, module: ModuleFact | None, node: Node | None) -> str:
        """For norms: what they normalize by, whether they scale, and the mode that they are in."""
        role = module.role if module else node.role if node else ""
        if role != "norm":
            return ""
        config = {**(module.config if module else {}), **(node.config if node else {})}
        words = []
        affine = config.get("affine", config.get("elementwise_affine"))
        if affine is not None:
            words.append("affine" if affine else "no affine")
        if config.get("track_running_stats") is False:
            words.append("batch statistics")
        if module:
            words.append("train" if module.training else "eval")
        return ", ".join(words)

    def weights(self, module: ModuleFact | None) -> dict[str, tuple[int, ...]]:
        """The module's own parameters and their shapes; for a composite norm, those within too."""
        if module is None:
            return {}
        own = (self.graph.parameters[name] for name in module.parameters if name in self.graph.parameters)
        return {p.attribute: p.tensor.shape for p in own if p.kind == "parameter"}

    def size(self, path: str) -> int:
        composite = path in self.composite
        return sum(
            p.tensor.size
            for p in self.facts.parameters
            if p.kind == "parameter" and (p.module == path or (composite and within(p.module, path)))
        )


def to_text(found: Inventory, kinds: Collection[str], style: Style) -> str:
    """Write the inventory as a table that fits the terminal, with totals below."""
    rows = [row for row in found.rows if row.kind in kinds]
    files = {row.location.file for row in rows if row.location}
    alone = len(files) == 1
    source = f" ({style.clean(shown_path(next(iter(files))))})" if alone else ""
    parts = [style.paint(style.clean(found.target), "bold") + source]
    parts += [f"input {style.clean(text)}" for text in found.inputs]
    parts += [f"{style.paint('note:', 'bold')} {style.clean(note)}" for note in found.notes]
    if rows:
        headers = [name if alone or name != "line" else "source" for name in HEADERS]
        cells = [[style.clean(cell) for cell in _cells(row, alone)] for row in rows]
        parts += ["", table(cells, headers, style.width, right=("line", "parameters")), ""]
    return "\n".join([*parts, *_totals(found, rows, kinds)]) + "\n"


def to_json(found: Sequence[Inventory], kinds: Collection[str]) -> str:
    """Write inventories as JSON."""
    models = [
        msgspec.structs.replace(one, rows=tuple(row for row in one.rows if row.kind in kinds))
        for one in found
    ]
    payload = {"schema_version": 1, "models": models}
    return msgspec.json.format(msgspec.json.encode(payload, enc_hook=str), indent=2).decode() + "\n"


def _cells(row: Row, alone: bool) -> list[str]:
    place = row.location
    source = "" if place is None else str(place.line) if alone else f"{shown_path(place.file)}:{place.line}"
    shapes = [f"{name} {times(shape)}" for name, shape in row.weights.items()]
    settings = [f"{name} {_value(value)}" for name, value in row.settings.items()]
    words = ([] if row.kind == "norm" else shapes) + settings + ([row.mode] if row.mode else [])
    calls = "never called" if row.calls == 0 else f"called {row.calls} times" if row.calls > 1 else ""
    return [
        row.layer or "(model)",
        row.what,
        source,
        times(row.output),
        ", ".join([*([calls] if calls else []), *words]),
        row.before,
        row.after,
        f"{row.parameters:,}" if row.parameters else "",
    ]


def _totals(found: Inventory, rows: Sequence[Row], kinds: Collection[str]) -> list[str]:
    lines = []
    for kind, title in TITLES.items():
        if kind in kinds:
            counted = Counter(row.what for row in rows if row.kind == kind)
            named = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
            detail = ", ".join(f"{count} {what}" for what, count in named)
            lines.append(f"{counted.total()} {title}" + (f": {detail}" if detail else ""))
    frozen = found.parameters - found.trainable
    frost = f", {frozen:,} of them frozen" if frozen else ""
    buffers = f"; {found.buffers:,} numbers in buffers" if found.buffers else ""
    noun = "parameter" if found.parameters == 1 else "parameters"
    lines.append(f"{found.parameters:,} {noun}{frost}{buffers}")
    return lines


def times(shape: Sequence[int]) -> str:
    """`8x64x32x32`."""
    return "x".join(str(length) for length in shape)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return times(value) if all(isinstance(item, int) for item in value) else str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _usual(name: str, value: Any) -> bool:
    return (list(value) if isinstance(value, tuple) else value) in USUAL.get(name, ())
