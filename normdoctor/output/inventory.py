"""The inventory of a model: every norm, activation and layer with weights, in execution order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from normdoctor.census import count_parameters, norm_owners, within
from normdoctor.facts import Facts, InputFact, Location, ModuleFact, Node
from normdoctor.graph import Graph
from normdoctor.output.paths import shown_path
from normdoctor.output.style import Style
from normdoctor.output.table import table
from normdoctor.rules.weights import described

#: Role of a node or module to the kind of row that it makes.
KINDS = {"norm": "norm", "activation": "activation", "softmax": "activation", "linear": "weight"}
#: Settings worth a word, in this order.
SETTINGS = (
    *("num_groups", "eps", "momentum", "track_running_stats", "negative_slope", "approximate", "dim"),
    *("stride", "padding", "dilation", "groups"),
)
#: What most users leave alone is not worth a word.
USUAL = {
    "stride": ("1",),
    "padding": ("0",),
    "dilation": ("1",),
    "groups": ("1",),
    "approximate": ("none",),
    "affine": ("True",),
    "track_running_stats": ("True",),
}
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
    initial: dict[str, str] = {}
    """The initialization that the values of each parameter match, where they are known."""
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
    mode: str = ""


def inventory(facts: Facts) -> Inventory:
    """Take the inventory of a model."""
    return Inventory(
        target=facts.target,
        rows=tuple(_Rows(facts).build()),
        inputs=tuple(_input(fact) for fact in facts.inputs),
        notes=facts.notes,
        recorded=facts.recorded,
        parameters=count_parameters(facts),
        trainable=count_parameters(facts, trainable=True),
        mode="train" if facts.training else "eval",
        buffers=sum(p.tensor.size for p in facts.parameters if p.kind == "buffer"),
    )


class _Rows:
    """Gathers the rows of one model: one for each layer or place of a call, however often it runs."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.graph = Graph(facts)
        #: Norms whose forward is the user's own: their inner steps are one row.
        self.composite = [m.path for m in facts.modules if m.role in ("norm", "activation") and not m.leaf]
        owners = norm_owners(facts)
        confirmed = [norm for norm in enumerate(facts.handwritten) if norm[1].confirmed]
        #: Modules that are norms by what they do, and the norms that stand within another forward.
        self.by_hand = {owners[place].path: norm for place, norm in confirmed if place in owners}
        self.inline = {i: norm for place, norm in confirmed if place not in owners for i in norm.nodes}
        self.composite += [path for path in self.by_hand if path not in self.composite]

    def build(self) -> list[Row]:
        steps: dict[tuple[Any, ...], list[Node]] = {}
        for node in self.facts.nodes:
            if key := self.key(node):
                steps.setdefault(key, []).append(node)
        rows = [self.row(key, nodes) for key, nodes in steps.items()]
        seen = {key[0] for key in steps if len(key) == 1}
        rows += [self.unplaced(module) for module in self.facts.modules if self.is_unplaced(module, seen)]
        return rows

    def key(self, node: Node) -> tuple[Any, ...] | None:
        """The row that a node belongs to: a module, or for a function the place of its call."""
        if (outer := self.outer(node)) is not None:
            return (outer,)
        if (norm := self.inline.get(node.index)) is not None:
            return (node.scope, f"{norm.kind or 'norm'} by hand", norm.location)
        if node.module is not None:
            return (node.module,) if node.role in KINDS or node.parameters else None
        if node.parameters and node.op != "get_attr":
            parameter = self.graph.parameters.get(node.parameters[0])
            return (parameter.module,) if parameter and parameter.kind == "parameter" else None
        return (node.scope, node.kind, node.location) if node.role in KINDS else None

    def outer(self, node: Node) -> str | None:
        """The hand-written norm or activation in whose forward a node stands."""
        inside = (p for p in self.composite if node.scope == p or within(node.scope, p))
        return min(inside, key=len, default=None)

    def row(self, key: tuple[Any, ...], nodes: list[Node]) -> Row:
        first, last = nodes[0], nodes[-1]
        module = self.graph.modules.get(key[0]) if len(key) == 1 else None
        norm = self.by_hand.get(key[0]) if module else self.inline.get(first.index)
        by_hand = norm is not None and module is None
        roles = ["norm"] if norm else [module.role] if module else []
        before = self.graph.source(first, alone=False)
        if norm is not None:
            before, last = self.graph.through(self.facts.nodes[norm.input]), self.facts.nodes[norm.output]
        readers = self.graph.readers(last)
        return Row(
            kind=next(
                (KINDS[role] for role in (*roles, *(n.role for n in nodes)) if role in KINDS), "weight"
            ),
            layer=module.path if module else first.scope,
            what=key[1] if by_hand else self.what(module) if module else first.kind,
            location=(module.origin if module else None) or (key[2] if by_hand else first.location),
            output=last.shape,
            before=self.name(before) if before else "",
            after=", ".join(dict.fromkeys(self.name(node) for node in readers)),
            calls=(module.calls or 1) if module else len({n.call for n in nodes}) if norm else len(nodes),
            **self.about(module, first),
        )

    def unplaced(self, module: ModuleFact) -> Row:
        return Row(
            kind=KINDS.get(module.role, "weight"),
            layer=module.path,
            what=self.what(module),
            location=module.origin,
            calls=module.calls,
            **self.about(module, None),
        )

    def is_unplaced(self, module: ModuleFact, seen: set[str]) -> bool:
        """Is it a layer with a row of its own that no node led to?"""
        if module.path in seen or any(within(module.path, path) for path in self.composite):
            return False
        return module.role in KINDS or bool(self.weights(module))

    def what(self, module: ModuleFact) -> str:
        """The class of a layer, and which of torch's it is or computes."""
        norm = self.by_hand.get(module.path)
        meant = norm.kind if norm is not None else module.base
        return module.type if meant in ("", module.type) else f"{module.type} ({meant})"

    def name(self, node: Node) -> str:
        outer = self.outer(node)
        module = self.graph.modules.get(outer) if outer is not None else self.graph.module_of(node)
        norm = self.inline.get(node.index)
        return module.type if module else (norm.kind or node.kind) if norm else node.kind

    def about(self, module: ModuleFact | None, node: Node | None) -> dict[str, Any]:
        """The settings, mode and parameters of a row."""
        config = {**(module.config if module else {}), **(node.config if node else {})}
        settings = {name: config[name] for name in SETTINGS if name in config}
        norm = self.by_hand.get(module.path) if module else self.inline.get(node.index) if node else None
        if norm is not None:
            settings = {"eps": norm.eps} if norm.eps is not None else {}
        is_norm = (module.role if module else node.role if node else "") == "norm"
        if is_norm and norm is None:
            settings |= {"affine": config.get("affine", config.get("elementwise_affine", True))}
        return {
            "settings": {name: value for name, value in settings.items() if not _usual(name, value)},
            "weights": self.weights(module),
            "initial": self.initial(module),
            "mode": ("train" if module.training else "eval") if module else "",
            "parameters": self.size(module.path) if module else 0,
        }

    def weights(self, module: ModuleFact | None) -> dict[str, tuple[int, ...]]:
        """The module's own parameters and their shapes."""
        if module is None:
            return {}
        own = (self.graph.parameters[name] for name in module.parameters if name in self.graph.parameters)
        return {p.attribute: p.tensor.shape for p in own if p.kind == "parameter"}

    def initial(self, module: ModuleFact | None) -> dict[str, str]:
        """The initialization that the values of the module's own parameters match."""
        found = {}
        for name in module.parameters if module is not None else ():
            parameter, value = self.graph.parameters.get(name), (self.facts.weights or {}).get(name)
            if parameter is None or value is None or parameter.kind != "parameter":
                continue
            if text := described(value, parameter.tensor.shape, module, parameter.attribute):
                found[parameter.attribute] = text
        return found

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
    return f"{name} {_value(value)}"


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


def _input(fact: InputFact) -> str:
    name = "" if fact.name == "input" else f"{fact.name} "
    return f"{name}{times(fact.tensor.shape)} {fact.tensor.dtype} ({fact.source})"


def times(shape: Sequence[Any]) -> str:
    """`8x64x32x32`."""
    return "x".join(str(length) for length in shape)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return str(value[0]) if len({*map(str, value)}) == 1 else times(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _usual(name: str, value: Any) -> bool:
    return _value(value) in USUAL.get(name, ())
