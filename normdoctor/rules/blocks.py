"""Residual structures: what a sum adds to what, and where the norms stand in it.

`residuals(graph)` finds them all, in execution order, from the dataflow alone. A sum is residual where
one operand, the skip, is read by the other, the branch, inside the module that adds them:

    x + f(x)                       identity skip: `skip` is empty
    downsample(x) + f(x)           projection: `skip` holds the nodes between
    x + attention(n) + mlp(n)      one residual with two branches, n = norm(x)
    x + gamma * drop_path(f(x))    layer scale and stochastic depth are looked through

A concatenation (U-Net, DenseNet) is none, nor is a mask or a position that every layer adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from normdoctor.facts import Node
from normdoctor.graph import Graph, Norm
from normdoctor.rules.layers import CONTAINERS, WEIGHTED

#: Steps between the source and the sum on a skip that projects: conv, norm, activation, pooling, casts.
_LONGEST_SKIP = 12
_ON_SKIP = frozenset("linear norm activation pool dropout reshape".split())
_RANDOM = frozenset(
    "bernoulli rand rand_like randn randn_like empty new_empty empty_like uniform floor".split()
)
#: What tells one part of a split from another: such parts are not one skip.
_PARTS = frozenset("chunk split unbind select_output narrow".split())
_ATTENTION = frozenset({"attention", "softmax"})


class Branch(NamedTuple):
    """One branch: from the nodes that read the source (`starts`) to the operand of the sum (`end`).

    `nodes` are the indices of all between, `end` among them.
    """

    end: Node
    starts: tuple[Node, ...]
    nodes: frozenset[int]


class Residual(NamedTuple):
    """A sum of a tensor and of what was computed from it.

    Args:
        add: The sum; of `x + a + b` the outermost.
        source: The node whose output both the skip and the branches read.
        skip: The nodes between the source and the sum on the skip that are more than scale, dropout
            and reshape; empty for an identity skip.
        branches: One or more.
        scope: The path of the module in whose forward the sum stands, or of the one around it that
            holds the branch too (BertOutput is given the branch and the skip).
        prenorm: The norms of the source that a branch starts with; empty unless each branch starts so.
        postnorm: The norm that alone reads the sum, None where there is none.
    """

    add: Node
    source: Node
    skip: tuple[Node, ...]
    branches: tuple[Branch, ...]
    scope: str
    prenorm: tuple[Norm, ...]
    postnorm: Norm | None

    @property
    def nodes(self) -> frozenset[int]:
        """The indices of all nodes of the branches."""
        return frozenset().union(*(branch.nodes for branch in self.branches))


_found: WeakKeyDictionary[Graph, tuple[Residual, ...]] = WeakKeyDictionary()
#: Node to the places in `graph.norms` of the norms whose input it reads.
_starts: WeakKeyDictionary[Graph, dict[int, list[int]]] = WeakKeyDictionary()


def residuals(graph: Graph) -> tuple[Residual, ...]:
    """All residual sums, in execution order (computed once for a graph)."""
    if graph not in _found:
        _found[graph] = tuple(_search(graph))
    return _found[graph]


def trunks(graph: Graph) -> list[list[Residual]]:
    """Chains of residuals, each of which starts from the sum of the one before.

    Only a reshape, a scale or a dropout may stand between: a downsampling ends a trunk.
    """
    chains: dict[int, list[Residual]] = {}
    for residual in residuals(graph):
        chain = chains.pop(strip(graph, residual.source).index, [])
        chain.append(residual)
        chains[strip(graph, residual.add).index] = chain
    return list(chains.values())


def light(graph: Graph, node: Node) -> bool:
    """Does it hand on its first input up to scale: reshape, dropout, layer scale, stochastic depth?"""
    if graph.norm_at(node) is not None:
        return False  # the scale of a norm that is written by hand belongs to the norm
    if node.kind == "select_output" and graph.nodes[node.inputs[0]].role == "reshape":
        return False  # one part of a split is not another
    if graph.transparent(node) or node.role == "dropout":
        return True
    if node.kind not in ("mul", "div") or not node.inputs:
        return False
    return len(node.inputs) == 1 or all(_random(graph, other) for other in graph.inputs(node)[1:])


def strip(graph: Graph, node: Node) -> Node:
    """The node that computed what `node` returns, through light nodes."""
    while light(graph, node) and node.inputs:
        node = graph.nodes[node.inputs[0]]
    return node


def light_readers(graph: Graph, node: Node) -> list[Node]:
    """The nodes that use the values of `node`, through light ones, in execution order."""
    found: dict[int, Node] = {}
    stack = [node]
    while stack:
        current = stack.pop()
        for reader in graph.users(current):
            if reader.index in found:
                continue
            if light(graph, reader) and reader.inputs[0] == current.index:
                stack.append(reader)
            elif not _only_its_shape(reader):
                found[reader.index] = reader
    return [found[index] for index in sorted(found)]


def norms_on(graph: Graph, node: Node) -> list[Norm]:
    """The norms that act on what `node` returns, through light nodes."""
    if graph not in _starts:
        _starts[graph] = {}
        for place, norm in enumerate(graph.norms):
            for index in _first_of(graph, norm):
                _starts[graph].setdefault(index, []).append(place)
    places = {p for reader in light_readers(graph, node) for p in _starts[graph].get(reader.index, ())}
    return [graph.norms[place] for place in sorted(places)]


def weighted(graph: Graph, nodes: Iterable[int]) -> list[Node]:
    """Layers with weights among these nodes, and attention."""
    chosen = (graph.nodes[index] for index in sorted(nodes))
    return [node for node in chosen if node.role in ("linear", "attention") and node.kind != "embedding"]


def attends(graph: Graph, nodes: Iterable[int]) -> bool:
    """Is there an attention among these nodes, by a call or by a softmax?"""
    return any(graph.nodes[index].role in _ATTENTION for index in nodes)


def inside(path: str, scope: str) -> bool:
    """Is the module at `path` the one at `scope` or below it?"""
    return not scope or path == scope or path.startswith(f"{scope}.")


def _search(graph: Graph) -> Iterator[Residual]:
    inner = {index for norm in graph.facts.handwritten for index in norm.nodes}
    for node in graph.by_role("add"):
        if node.kind != "add" or not node.inputs or node.index in inner or _absorbed(graph, node):
            continue
        operands = list(_operands(graph, node))
        if len(operands) < 2:
            continue
        found = _with_identity(graph, node, operands) or _with_projection(graph, node, operands)
        if found is not None:
            yield found


def _absorbed(graph: Graph, node: Node) -> bool:
    """Is this sum itself only an operand of a larger one (`x + a` in `x + a + b`)?"""
    readers = light_readers(graph, node)
    return len(readers) == 1 and readers[0].kind == "add" and len(readers[0].inputs) > 1


def _operands(graph: Graph, node: Node) -> Iterator[Node]:
    for one in graph.inputs(node):
        made = strip(graph, one)
        if made.kind == "add" and len(made.inputs) > 1 and _absorbed(graph, made):
            yield from _operands(graph, made)
        else:
            yield one


def _with_identity(graph: Graph, add: Node, operands: list[Node]) -> Residual | None:
    # The tensor that was there first is the skip: it cannot have been computed from the others.
    for operand in sorted(operands, key=lambda one: strip(graph, one).index):
        chain = _light_chain(graph, operand)
        others = [one for one in operands if one is not operand]
        for source in chain:
            if add.shape not in (source.shape, operand.shape):
                break
            if found := _residual(graph, add, source, (), others):
                return found
    return None


def _with_projection(graph: Graph, add: Node, operands: list[Node]) -> Residual | None:
    best: Residual | None = None
    for operand in operands:
        others = [one for one in operands if one is not operand]
        passed: list[Node] = []
        current = operand
        while len(passed) < _LONGEST_SKIP and current.inputs:
            if not light(graph, current) and (current.role not in _ON_SKIP or current.kind in _PARTS):
                break
            if not light(graph, current):
                passed.append(current)
            current = graph.nodes[current.inputs[0]]
            layers = len([one for one in passed if one.kind in WEIGHTED])
            if layers > 1:
                break
            found = _residual(graph, add, current, tuple(reversed(passed)), others)
            if found and len(weighted(graph, found.nodes)) > layers:
                if best is None or len(found.skip) < len(best.skip):
                    best = found
                break
    return best


def _residual(
    graph: Graph, add: Node, source: Node, skip: tuple[Node, ...], others: list[Node]
) -> Residual | None:
    branches = tuple(branch for one in others if (branch := _branch(graph, source, one)) is not None)
    if not any(weighted(graph, branch.nodes) for branch in branches):
        return None
    scope = _scope(graph, add, branches)
    if scope is None:
        return None
    norms: dict[int, Norm] = {}
    for branch in branches:
        found = [norm for norm in norms_on(graph, source) if norm.output.index in branch.nodes]
        first = {index for norm in found for index in _nodes_of(norm)}
        if not found or any(start.index not in first for start in branch.starts):
            norms.clear()
            break
        norms.update({norm.output.index: norm for norm in found})
    return Residual(add, source, skip, branches, scope, tuple(norms.values()), _postnorm(graph, add))


def _branch(graph: Graph, source: Node, end: Node) -> Branch | None:
    """What lies between `source` and `end`, None where `end` was not computed from it."""
    cone, stack = {end.index}, [end]
    while stack:
        for index in stack.pop().inputs:
            if index > source.index and index not in cone:
                cone.add(index)
                stack.append(graph.nodes[index])
    between: set[int] = set()
    for index in sorted(cone):
        if any(one == source.index or one in between for one in graph.nodes[index].inputs):
            between.add(index)
    if end.index not in between or all(light(graph, graph.nodes[index]) for index in between):
        return None
    starts = tuple(one for one in light_readers(graph, source) if one.index in between)
    return Branch(end, starts, frozenset(between)) if starts else None


def _scope(graph: Graph, add: Node, branches: tuple[Branch, ...]) -> str | None:
    """The module that adds, if a branch starts in it, or the one around both; else None.

    A position that every layer adds is read by a sum in another layer: that is no residual.
    """
    starts = [start for branch in branches for start in branch.starts]
    scope = add.scope
    if any(inside(one.scope, scope) and (one.call == add.call or one.scope != scope) for one in starts):
        return scope
    for start in starts:
        scope = _common(start.scope, add.scope)
        around = graph.modules.get(scope)
        if scope and around is not None and around.type not in CONTAINERS and start.kind != "add":
            return scope
    return None


def _common(one: str, other: str) -> str:
    """The path of the innermost module around both."""
    parts: list[str] = []
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if left != right:
            break
        parts.append(left)
    return ".".join(parts)


def _postnorm(graph: Graph, add: Node) -> Norm | None:
    readers = light_readers(graph, add)
    norms = norms_on(graph, add)
    if len(norms) != 1 or not readers:
        return None
    own = _nodes_of(norms[0])
    return norms[0] if all(one.index in own for one in readers) else None


def _nodes_of(norm: Norm) -> set[int]:
    own = set(norm.handwritten.nodes) if norm.handwritten is not None else set()
    return own | {norm.output.index}


def _first_of(graph: Graph, norm: Norm) -> set[int]:
    """Of the nodes of a norm those that read its input."""
    if norm.handwritten is None or norm.input is None:
        return {norm.output.index}
    readers = {reader.index for reader in light_readers(graph, norm.input)}
    return readers.intersection(norm.handwritten.nodes)


def _light_chain(graph: Graph, node: Node) -> list[Node]:
    """The node, and what stands before it as long as that is light."""
    chain = [node]
    while light(graph, node) and node.inputs:
        node = graph.nodes[node.inputs[0]]
        chain.append(node)
    return chain


def _random(graph: Graph, node: Node) -> bool:
    """Is this noise, as stochastic depth multiplies with?"""
    while node.kind not in _RANDOM:
        if not node.inputs or not (light(graph, node) or node.kind in ("add", "div", "mul")):
            return False
        node = graph.nodes[node.inputs[0]]
    return True


def _only_its_shape(node: Node) -> bool:
    """Does it take shape and device of its input, and no value?"""
    return node.kind.endswith("_like") or node.kind.startswith("new_")
