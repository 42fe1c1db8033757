"""Axes in rules: what they stand for, which one a softmax takes, and where one goes through a node."""

from __future__ import annotations

from collections.abc import Sequence

from normdoctor.facts import Node
from normdoctor.graph import Graph
from normdoctor.rules.chains import RESHAPES, axis_before

POSITIONS = frozenset({"time", "space"})
_SOFTMAX_2D_RANK = 3


def words(label: str) -> frozenset[str]:
    """What an axis was merged of: batch and time of `batch*time`; empty where it is unknown."""
    return frozenset(label.split("*")) if label else frozenset()


def shown(axes: Sequence[str], shape: Sequence[int]) -> str:
    """Axes in the words of a message: `(batch 4, time 32, channel 9)`."""
    return "(" + ", ".join(f"{name or '?'} {size}" for name, size in zip(axes, shape, strict=True)) + ")"


def softmax_axis(graph: Graph, node: Node) -> int | None:
    """The axis that a softmax normalizes, counted from 0; None where it is unknown.

    Without `dim`, torch takes axis 0 of a tensor with 0, 1 or 3 axes and axis 1 of all others.
    """
    rank = len(node.shape)
    if not rank:
        return None
    module = graph.module_of(node)
    if module is not None and module.base == "Softmax2d":
        return rank - _SOFTMAX_2D_RANK if rank >= _SOFTMAX_2D_RANK else None
    dim = node.config.get("dim", -1 if node.kind == "gumbel_softmax" else None)
    if dim is None:
        return implicit_axis(rank)
    if isinstance(dim, bool) or not isinstance(dim, int) or not -rank <= dim < rank:
        return None
    return dim % rank


def implicit_axis(rank: int) -> int:
    """The axis that torch's softmax takes where none is given."""
    return 0 if rank in (0, 1, 3) else 1


def permutation(node: Node, rank: int) -> list[int] | None:
    """For a node that reorders axes: which input axis each output axis was; None for other nodes."""
    config = node.config
    if node.kind == "permute":
        dims = config.get("dims")
        if not isinstance(dims, list) or len(dims) != rank or not all(isinstance(one, int) for one in dims):
            return None
        return [one % rank for one in dims]
    if node.kind not in ("transpose", "swapaxes", "t", "adjoint"):
        return None
    order = list(range(rank))
    first, second = config.get("dim0"), config.get("dim1")
    if first in ("T", "H") or node.kind == "t":
        return order[::-1]
    if first in ("mT", "mH") or node.kind == "adjoint":
        first, second = -2, -1
    if not isinstance(first, int) or not isinstance(second, int) or rank < 2:
        return None
    order[first], order[second] = order[second], order[first]
    return order


def back(graph: Graph, node: Node, axis: int, source: Node) -> int | None:
    """Which axis of `source`, an input of `node`, became `axis` of its output; None where lost."""
    before, after = source.shape, node.shape
    if (order := permutation(node, len(before))) is not None:
        return order[axis]
    if node.kind == "unsqueeze":
        place = node.config.get("dim")
        if not isinstance(place, int) or place % len(after) == axis:
            return None
        return axis - (place % len(after) < axis)
    if node.kind == "getitem":
        return _indexed(node, len(before)).get(axis)
    if node.kind in RESHAPES:
        return axis_before(node, before, axis)
    place = axis - (len(after) - len(before))
    return place if place >= 0 and before[place] == after[axis] else None


def forth(graph: Graph, source: Node, axis: int, node: Node) -> int | None:
    """Which axis of what `node` returns is `axis` of `source`, its input; None where lost."""
    if not 0 <= axis < len(source.shape):
        return None
    found = [place for place in range(len(node.shape)) if back(graph, node, place, source) == axis]
    return found[0] if len(found) == 1 else None


def _indexed(node: Node, rank: int) -> dict[int, int]:
    """For `x[...]` with slices, integers and None: output axis to input axis."""
    index = node.config.get("index", [])
    if any(one == "tensor" or one in ("True", "False") for one in index):
        return {}
    taken = sum(1 for one in index if one not in ("None", "..."))
    entries = list(index) if "..." in index else [*index, "..."]
    found: dict[int, int] = {}
    place = out = 0
    for one in entries:
        if one == "...":
            for _ in range(rank - taken):
                found[out] = place
                place, out = place + 1, out + 1
        elif one == "None":
            out += 1
        else:
            if isinstance(one, str):
                found[out] = place
                out += 1
            place += 1
    return found
