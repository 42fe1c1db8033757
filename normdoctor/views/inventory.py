"""The inventory of a model: every norm, activation and layer with weights, in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from normdoctor.census import count_parameters, norm_owners, within
from normdoctor.facts import Facts, HandwrittenNorm, InputFact, Location, ModuleFact, Node
from normdoctor.graph import Graph
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
    layers = Layers(Graph(facts))
    return Inventory(
        target=facts.target,
        rows=tuple(_row(layers, layer) for layer in layers),
        inputs=tuple(_input(fact) for fact in facts.inputs),
        notes=facts.notes,
        recorded=facts.recorded,
        parameters=count_parameters(facts),
        trainable=count_parameters(facts, trainable=True),
        mode="train" if facts.training else "eval",
        buffers=sum(p.tensor.size for p in facts.parameters if p.kind == "buffer"),
    )


class Layer(NamedTuple):
    """One layer or place of a call, and the nodes that are its executions; none for one that never ran.

    `inline` is the hand-written norm that stands within another forward.
    """

    module: ModuleFact | None
    nodes: tuple[Node, ...]
    norm: HandwrittenNorm | None
    kind: str

    @property
    def inline(self) -> HandwrittenNorm | None:
        """The hand-written norm that stands within another forward, where it is one."""
        return self.norm if self.module is None else None

    @property
    def path(self) -> str:
        """The path of the module, or of that in whose forward the call stands."""
        return self.module.path if self.module else self.nodes[0].scope

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the module and the arguments of the call."""
        return {**(self.module.config if self.module else {}), **(self.nodes[0].config if self.nodes else {})}

    @property
    def location(self) -> Location | None:
        """Where the module was built, otherwise the call."""
        if self.module is not None and (self.module.origin or not self.nodes):
            return self.module.origin
        return self.norm.location if self.inline and self.norm else self.nodes[0].location

    @property
    def calls(self) -> int:
        """How often it ran in the recorded forward."""
        if self.module is not None:
            return (self.module.calls or 1) if self.nodes else self.module.calls
        return len({node.call for node in self.nodes}) if self.norm else len(self.nodes)

    @property
    def mode(self) -> str:
        """`train` or `eval`; empty for a function."""
        return ("train" if self.module.training else "eval") if self.module else ""


class Layers:
    """Gathers the layers of one model: one for each module or place of a call, however often it runs."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.facts = graph, graph.facts
        facts = graph.facts
        owners = norm_owners(facts)
        confirmed = [norm for norm in enumerate(facts.handwritten) if norm[1].confirmed]
        #: Modules that are norms by what they do, and the norms that stand within another forward.
        self.by_hand = {owners[place].path: norm for place, norm in confirmed if place in owners}
        self.inline = {i: norm for place, norm in confirmed if place not in owners for i in norm.nodes}
        #: Norms and activations whose forward is the user's own: their inner steps are one row.
        self.composite = {m.path for m in facts.modules if m.role in ("norm", "activation") and not m.leaf}
        self.composite |= self.by_hand.keys()
        self._outer: dict[str, str | None] = {}

    def __iter__(self) -> Iterator[Layer]:
        """All of them: those that ran, in the order of execution, then the others."""
        steps: dict[tuple[Any, ...], list[Node]] = {}
        for node in self.facts.nodes:
            if key := self.key(node):
                steps.setdefault(key, []).append(node)
        for key, nodes in steps.items():
            module = self.graph.modules.get(key[0]) if len(key) == 1 else None
            norm = self.by_hand.get(key[0]) if module else self.inline.get(nodes[0].index)
            roles = ["norm"] if norm else [module.role] if module else []
            roles += [node.role for node in nodes]
            kind = next((KINDS[role] for role in roles if role in KINDS), "weight")
            yield Layer(module, tuple(nodes), norm, kind)
        seen = {key[0] for key in steps if len(key) == 1}
        for module in self.facts.modules:
            if self.is_unplaced(module, seen):
                norm = self.by_hand.get(module.path)
                yield Layer(module, (), norm, KINDS.get(module.role, "weight"))

    def key(self, node: Node) -> tuple[Any, ...] | None:
        """The layer that a node belongs to: a module, or for a function the place of its call."""
        if (outer := self.outer(node.scope)) is not None:
            return (outer,)
        if (norm := self.inline.get(node.index)) is not None:
            return (node.scope, f"{norm.kind or 'norm'} by hand", norm.location)
        if node.module is not None:
            return (node.module,) if node.role in KINDS or node.parameters else None
        if node.parameters and node.op != "get_attr":
            parameter = self.graph.parameters.get(node.parameters[0])
            return (parameter.module,) if parameter and parameter.kind == "parameter" else None
        return (node.scope, node.kind, node.location) if node.role in KINDS else None

    def outer(self, scope: str) -> str | None:
        """The outermost hand-written norm or activation in whose forward a scope lies."""
        if scope not in self._outer:
            above = self.outer(scope.rpartition(".")[0]) if scope else None
            self._outer[scope] = scope if above is None and scope in self.composite else above
        return self._outer[scope]

    def is_unplaced(self, module: ModuleFact, seen: set[str]) -> bool:
        """Is it a layer with a row of its own that no node led to?"""
        if module.path in seen or (module.path and self.outer(module.path.rpartition(".")[0]) is not None):
            return False
        return module.role in KINDS or bool(self.weights(module))

    def what(self, layer: Layer) -> str:
        """The class of a layer, and which of torch's it is or computes; the name of a function."""
        if layer.module is None:
            return f"{layer.norm.kind or 'norm'} by hand" if layer.norm else layer.nodes[0].kind
        meant = layer.norm.kind if layer.norm is not None else layer.module.base
        kind = layer.module.type
        return kind if meant in ("", kind) else f"{kind} ({meant})"

    def name(self, node: Node) -> str:
        """What a neighbour is called."""
        outer = self.outer(node.scope)
        module = self.graph.modules.get(outer) if outer is not None else self.graph.module_of(node)
        norm = self.inline.get(node.index)
        return module.type if module else (norm.kind or node.kind) if norm else node.kind

    def weights(self, module: ModuleFact | None) -> dict[str, tuple[int, ...]]:
        """The module's own parameters and their shapes."""
        if module is None:
            return {}
        own = (self.graph.parameters[name] for name in module.parameters if name in self.graph.parameters)
        return {p.attribute: p.tensor.shape for p in own if p.kind == "parameter"}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for one in self.facts.parameters:
            if one.kind == "parameter":
                sizes[one.module] = sizes.get(one.module, 0) + one.tensor.size
        return sizes

    def size(self, path: str) -> int:
        """The number of parameters of a layer, those of its parts too where it is one by the user."""
        if path not in self.composite:
            return self._sizes.get(path, 0)
        return sum(size for module, size in self._sizes.items() if module == path or within(module, path))


def _row(layers: Layers, layer: Layer) -> Row:
    """A layer with its neighbours."""
    module, nodes, norm = layer.module, layer.nodes, layer.norm
    before, last, readers = None, nodes[-1] if nodes else None, []
    if last is not None:
        graph = layers.graph
        before = graph.source(nodes[0], alone=False)
        if norm is not None:
            before, last = graph.through(graph.nodes[norm.input]), graph.nodes[norm.output]
        readers = graph.readers(last)
    return Row(
        kind=layer.kind,
        layer=layer.path,
        what=layers.what(layer),
        location=layer.location,
        output=last.shape if last else (),
        before=layers.name(before) if before else "",
        after=", ".join(dict.fromkeys(layers.name(node) for node in readers)),
        calls=layer.calls,
        settings=_settings(layer),
        weights=layers.weights(module),
        initial=_initial(layers, module),
        mode=layer.mode,
        parameters=layers.size(module.path) if module else 0,
    )


def _settings(layer: Layer) -> dict[str, Any]:
    """The settings that are worth a word."""
    config, norm = layer.config, layer.norm
    settings = {name: config[name] for name in SETTINGS if name in config}
    if norm is not None:
        settings = {"eps": norm.eps} if norm.eps is not None else {}
    role = layer.module.role if layer.module else layer.nodes[0].role
    if role == "norm" and norm is None:
        settings |= {"affine": config.get("affine", config.get("elementwise_affine", True))}
    return {name: value for name, value in settings.items() if not _usual(name, value)}


def _initial(layers: Layers, module: ModuleFact | None) -> dict[str, str]:
    """The initialization that the values of the module's own parameters match."""
    found, graph = {}, layers.graph
    for name in module.parameters if module is not None else ():
        parameter, value = graph.parameters.get(name), (graph.facts.weights or {}).get(name)
        if parameter is None or value is None or parameter.kind != "parameter":
            continue
        if text := described(value, parameter.tensor.shape, module, parameter.attribute):
            found[parameter.attribute] = text
    return found


def _input(fact: InputFact) -> str:
    name = "" if fact.name == "input" else f"{fact.name} "
    return f"{name}{times(fact.tensor.shape)} {fact.tensor.dtype} ({fact.source})"


def times(shape: Sequence[Any]) -> str:
    """`8x64x32x32`."""
    return "x".join(str(length) for length in shape)


def worded(value: Any) -> str:
    """The value of a setting: `0.1`, `3` for `(3, 3)`, `1x2`."""
    if isinstance(value, (list, tuple)):
        return str(value[0]) if len({*map(str, value)}) == 1 else times(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _usual(name: str, value: Any) -> bool:
    return worded(value) in USUAL.get(name, ())
