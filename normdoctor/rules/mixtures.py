"""Averages of softmaxes: which softmaxes a tensor is made of, and how large its entries can get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from normdoctor.facts import Node
from normdoctor.graph import Graph
from normdoctor.rules.chains import MOVES, SHUFFLES, axis_before
from normdoctor.rules.layers import number, owner

#: Kinds that average over space, and keep batch and channels apart.
_RESAMPLES = frozenset(
    "interpolate avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d".split()
)


class Mixture(NamedTuple):
    """Softmaxes, each with the axis that stands for the classes there, and the sum of the weights.

    `gain` is None where a factor is not known.
    """

    parts: tuple[tuple[Node, int], ...]
    gain: float | None


def mixture(graph: Graph, node: Node, axis: int) -> Mixture | None:
    """What softmaxes over `axis` the node is a weighted sum of; None where anything else goes in."""
    if node.role == "softmax":
        return Mixture(((node, axis),), 1.0) if softmax_axis(graph, node) == axis else None
    before = graph.inputs(node)
    if before and node.kind == "matmul":
        return _labelled(graph, node, before, axis)
    if not before or node.parameters:
        return None
    if graph.transparent(node) and node.kind not in SHUFFLES:
        moved = axis_before(node, before[0].shape, axis)
        return None if moved is None else mixture(graph, before[0], moved)
    if node.kind in ("add", "mul", "div"):
        return _combined(graph, node, before, axis)
    if node.kind == "mean" or (node.kind == "sum" and before[0].kind == "stack"):
        return _reduced(graph, node, before[0], axis)
    if node.kind == "getitem":
        moved = indexed_axis(node, before[0].shape, axis)
        return None if moved is None else mixture(graph, before[0], moved)
    if node.kind in _RESAMPLES or clamps_to_unit(node):
        kept = axis < 2 and len(before[0].shape) == len(node.shape)
        return mixture(graph, before[0], axis) if kept else None
    if node.kind in ("stack", "cat"):
        place = _axis(node.config.get("dim", 0), len(node.shape))
        if place is None or place == axis:
            return None
        inner = axis - (node.kind == "stack" and axis > place)
        found = _each(graph, before, inner)
        return found and Mixture(found.parts, _largest(graph, before, inner))
    return None


def _labelled(graph: Graph, node: Node, before: Sequence[Node], axis: int) -> Mixture | None:
    """Attention times one-hot rows: each row of the product sums to one, as those of the softmax do."""
    if axis != len(node.shape) - 1 or not before[0].shape:
        return None
    if not (_is_one_hot(graph, before[1]) if len(before) > 1 else _reads_one_hot(graph, node)):
        return None
    return mixture(graph, before[0], len(before[0].shape) - 1)


def _reads_one_hot(graph: Graph, node: Node) -> bool:
    """Is the tensor of the model's that a product reads made of one-hot rows, as far as can be told?"""
    if len(node.parameters) != 1:
        return False
    name = node.parameters[0]
    made = (one for one in graph.by_role("parameter") if one.kind == "one_hot")
    if any(one.parameters == (name,) for one in made):
        return True
    tensor, values = graph.parameters.get(name), (graph.facts.weights or {}).get(name)
    if tensor is None or values is None or tensor.trainable or len(tensor.tensor.shape) != 2:
        return False
    share = 1 / tensor.tensor.shape[1]  # of zeros and ones with one 1 a row
    spread = (share * (1 - share)) ** 0.5
    bounds = (values.minimum, values.maximum) == (0.0, 1.0)
    return bounds and abs(values.mean - share) < 1e-6 and abs(values.std - spread) < 1e-5


def _is_one_hot(graph: Graph, node: Node) -> bool:
    while graph.transparent(node) and node.inputs and node.kind not in MOVES:
        node = graph.nodes[node.inputs[0]]
    return node.kind == "one_hot"


def clamps_to_unit(node: Node) -> bool:
    """Is this a clamp that leaves probabilities almost as they are (`clamp(1e-7, 1 - 1e-7)`)?"""
    low, high = number(node.config.get("min")), number(node.config.get("max"))
    if node.kind != "clamp" or (low is None and high is None):
        return False
    return (low is None or low < 0.1) and (high is None or high > 0.9)


def indexed_axis(node: Node, before: tuple[int, ...], axis: int) -> int | None:
    """Which axis of its input, of shape `before`, an indexing hands on as `axis`; None if that is open."""
    entries = node.config.get("index")
    if not isinstance(entries, list) or axis >= len(node.shape):
        return None
    given = [one for one in entries if one not in ("None", "...")]
    if "..." in entries:
        place = entries.index("...")
        entries = [*entries[:place], *[":"] * (len(before) - len(given)), *entries[place + 1 :]]
    out = source = 0
    for index, entry in enumerate(entries):
        if entry == "tensor":  # a mask or indices: what stands behind it keeps its order
            rest = len(node.shape) - axis
            behind = "tensor" not in entries[index + 1 :] and index == len(entries) - 1 and axis > out
            found = len(before) - rest
            return found if behind and found > source and before[found] == node.shape[axis] else None
        if entry == "None":
            if out == axis:
                return None
            out += 1
        elif isinstance(entry, int):
            source += 1
        else:
            if out == axis:
                return source if before[source] == node.shape[axis] else None
            out, source = out + 1, source + 1
    found = source + axis - out
    return found if found < len(before) and before[found] == node.shape[axis] else None


def _combined(graph: Graph, node: Node, before: Sequence[Node], axis: int) -> Mixture | None:
    if len(before) > 1 and node.kind != "add":
        return None
    if any(one.shape != node.shape for one in before):
        return None
    found = _each(graph, before, axis)
    if found is None or node.kind == "add":
        return found
    factor = number(node.config.get("scalar"))
    if factor is None or found.gain is None or factor <= 0:
        return Mixture(found.parts, None)
    return Mixture(found.parts, found.gain * factor if node.kind == "mul" else found.gain / factor)


def _reduced(graph: Graph, node: Node, before: Node, axis: int) -> Mixture | None:
    rank = len(before.shape)
    dim = node.config.get("dim")
    if isinstance(dim, list | tuple) and len(dim) == 1:
        dim = dim[0]
    place = _axis(dim, rank)
    if place is None:
        return None
    inner = axis if len(node.shape) == rank or axis < place else axis + 1
    found = None if inner == place else mixture(graph, before, inner)
    if found is None or node.kind == "mean" or found.gain is None:
        return found
    return Mixture(found.parts, found.gain * before.shape[place])


def _each(graph: Graph, nodes: Sequence[Node], axis: int) -> Mixture | None:
    """The sum of several nodes, every one of which must be a mixture."""
    parts: list[tuple[Node, int]] = []
    gain: float | None = 0.0
    for node in nodes:
        found = mixture(graph, node, axis)
        if found is None:
            return None
        parts += found.parts
        gain = None if gain is None or found.gain is None else gain + found.gain
    return Mixture(tuple(parts), gain)


def _largest(graph: Graph, nodes: Sequence[Node], axis: int) -> float | None:
    gains = [found.gain for node in nodes if (found := mixture(graph, node, axis)) is not None]
    return max(gain for gain in gains if gain is not None) if None not in gains else None


def softmax_axis(graph: Graph, node: Node) -> int | None:
    """The axis that a softmax runs over, counted from 0."""
    rank = len(node.shape)
    dim = node.config.get("dim")
    if not isinstance(dim, int):
        module = owner(graph, node)
        planes = module is not None and module.type == "Softmax2d"
        dim = -3 if planes else _implicit(rank)
    return _axis(dim, rank)


def _implicit(rank: int) -> int:
    """The axis that torch takes for `dim=None`."""
    return 0 if rank in (0, 1, 3) else 1


def _axis(dim: object, rank: int) -> int | None:
    if isinstance(dim, bool) or not isinstance(dim, int) or not -rank <= dim < rank:
        return None
    return dim % rank
