"""The norms of a model as places in its source: constructors, calls of functions, norms written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from normdoctor.facts import Location, ModuleFact
from normdoctor.fixing.looking import Seen
from normdoctor.graph import Graph
from normdoctor.rules.byhand import NAMES, ByHand, by_hand
from normdoctor.rules.layers import BATCH_NORMS, INSTANCE_NORMS

LAYERS = BATCH_NORMS | INSTANCE_NORMS | {"LayerNorm", "GroupNorm", "RMSNorm", "LocalResponseNorm"}
OURS = "normdoctor.layers."


@dataclass(frozen=True)
class Site:
    """One place that makes or computes norms. `rank` is that of the input, 0 where it is not known."""

    kind: str
    what: str
    target: str
    place: Location | None
    modules: tuple[ModuleFact, ...]
    paths: tuple[str, ...]
    rank: int = 0
    norm: ByHand | None = None
    graph: Graph | None = None


def sites_of(seen: Seen, where: tuple[str, ...] = ()) -> list[Site]:
    """Every site of a target; with `where`, those all of whose modules match one of the patterns."""
    graph = Graph(seen.facts)
    found = [*_layers(seen, graph), *_by_hand(seen, graph), *_functions(seen, graph)]
    chosen = [one for one in found if not where or all(_matches(path, where) for path in one.paths)]
    return sorted(chosen, key=lambda one: (one.place is None, one.place or Location("", 0), one.kind))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _layers(seen: Seen, graph: Graph) -> Iterator[Site]:
    """Layers of torch and of ours, by the expression that builds them."""
    grouped: dict[tuple[Location | str, str], list[ModuleFact]] = {}
    for module in seen.facts.modules:
        if module.base in LAYERS or module.qualname.startswith(OURS):
            known = type(seen.modules[module.path]).__module__
            plain = known.startswith(("torch.nn.", OURS))
            key = (module.origin or module.path, module.type if plain else f"{module.type} (a subclass)")
            grouped.setdefault(key, []).append(module)
    for (_, what), modules in grouped.items():
        ranks = {len(shape) for module in modules for shape in _shapes(graph, module.path)}
        yield Site(
            "layer" if "subclass" not in what else "subclass",
            what,
            seen.facts.target,
            modules[0].origin,
            tuple(modules),
            tuple(module.path for module in modules),
            ranks.pop() if len(ranks) == 1 else 0,
        )


def _shapes(graph: Graph, path: str) -> list[tuple[int, ...]]:
    """The shapes that a layer is called on; a layer of ours is entered, so its first node tells."""
    calls = graph.calls_of(path) or [node for node in graph.nodes if node.scope == path][:1]
    known = (graph.input_tensor(call) for call in calls)
    return [tensor.shape for tensor in known if tensor is not None]


def _by_hand(seen: Seen, graph: Graph) -> Iterator[Site]:
    """Norms written by hand: those that are a module by themselves by where that is built."""
    grouped: dict[tuple[object, ...], list[ByHand]] = {}
    for found in by_hand(graph):
        if not found.norm.kind or _inside_layer(seen, found.module):
            continue
        place = found.owner.origin if found.owner is not None else found.location
        grouped.setdefault((place or found.module, found.owner is None), []).append(found)
    for members in grouped.values():
        first = members[0]
        owners = tuple(one.owner for one in members if one.owner is not None)
        yield Site(
            "by hand",
            f"{first.owner.type if first.owner else 'in a forward'}: {NAMES[first.norm.kind]} by hand",
            seen.facts.target,
            first.owner.origin if first.owner is not None else first.location,
            owners,
            tuple(one.module for one in members),
            len(first.input.shape),
            first,
            graph,
        )


def _functions(seen: Seen, graph: Graph) -> Iterator[Site]:
    """Calls of functional norms that stand in the code of a forward."""
    grouped: dict[Location | int, list[tuple[str, str]]] = {}
    hidden = {index for norm in seen.facts.handwritten if norm.confirmed for index in norm.nodes}
    for node in graph.by_role("norm"):
        if node.module is None and node.index not in hidden and not _inside_layer(seen, node.scope):
            grouped.setdefault(node.location or node.index, []).append((node.kind, node.scope))
    for place, calls in grouped.items():
        where = place if isinstance(place, Location) else None
        paths = tuple(dict.fromkeys(scope for _, scope in calls))
        yield Site("function", f"F.{calls[0][0]}", seen.facts.target, where, (), paths)


def _inside_layer(seen: Seen, path: str) -> bool:
    """Does a path lie in a layer that is a norm itself (of ours, or a subclass of torch's)?"""
    norms = {m.path for m in seen.facts.modules if m.base in LAYERS or m.qualname.startswith(OURS)}
    return path in norms or any(path.startswith(f"{one}.") for one in norms)
