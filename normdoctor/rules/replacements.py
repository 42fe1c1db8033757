"""The layer of torch that takes the place of a hand-written norm: what to build, and where its state goes."""

from __future__ import annotations

import math
from typing import NamedTuple

from normdoctor.graph import Graph
from normdoctor.rules.byhand import ByHand


class Replacement(NamedTuple):
    """`nn.<layer>(*arguments)`; `carries` are pairs of an old tensor's name and the new one's.

    An argument with `?` behind it is a size: the old source may say it in other words.
    """

    layer: str
    arguments: tuple[str, ...]
    carries: tuple[tuple[str, str], ...]


def replacement(graph: Graph, found: ByHand) -> Replacement | str:
    """What to build in the place of a norm that is a module by itself; the reason where there is nothing."""
    norm, shape = found.norm, found.input.shape
    if found.owner is None:
        return "it is not a module by itself"
    if norm.inverted or norm.unbiased or norm.eps_place != "inside" or norm.eps is None:
        return "it divides by n - 1, or adds its eps elsewhere than torch does"
    if not norm.centred and norm.kind != "rms_norm":
        return "it does not subtract the mean"
    affine = len(norm.scales), len(norm.shifts)
    if max(affine) > 1 or norm.evidence.get("gamma") == "1 + gamma":
        return "its scale and shift are not those of torch's layer"
    made = _layer(found, shape)
    if isinstance(made, str):
        return made
    layer, arguments, size = made
    held = [graph.parameters[name] for name in (*norm.scales, *norm.shifts) if name in graph.parameters]
    if any(one.tensor.size != size for one in held):
        return "its scale or shift has another shape than torch's"
    switch = _switch(norm.kind, affine)
    if switch is None:
        return "torch's layer has a scale wherever it has a shift"
    eps = () if norm.eps == 1e-5 and norm.kind != "rms_norm" else (f"eps={norm.eps:g}",)
    return Replacement(layer, (*arguments, *eps, *switch), _carries(found))


def _layer(found: ByHand, shape: tuple[int, ...]) -> tuple[str, tuple[str, ...], int] | str:
    """Name, sizes, and how many values its scale has."""
    norm, rank = found.norm, len(shape)
    space = tuple(range(2, rank))
    if norm.kind in ("layer_norm", "rms_norm"):
        if norm.reduced != tuple(range(rank - len(norm.reduced), rank)) or norm.groups:
            return "it does not normalize over the last axes"
        sizes = [shape[axis] for axis in norm.reduced]
        text = f"{sizes[0]}?" if len(sizes) == 1 else str(sizes)
        return ("LayerNorm" if norm.kind == "layer_norm" else "RMSNorm"), (text,), math.prod(sizes)
    if rank < 2:
        return "its input has a single axis"
    if norm.kind == "group_norm":
        return "GroupNorm", (str(norm.groups), str(shape[1])), shape[1]
    if norm.kind not in ("batch_norm", "instance_norm"):
        return "torch has a function for it, and no layer"
    wanted = (0, *space) if norm.kind == "batch_norm" else space
    if norm.kind == "batch_norm" and not norm.running:
        return "it keeps no running statistics"
    if norm.reduced != wanted and not norm.frozen:
        return "it normalizes over other axes than torch's layer"
    if norm.kind == "instance_norm" and norm.running:
        return "it keeps running statistics of instances"
    name = "BatchNorm" if norm.kind == "batch_norm" else "InstanceNorm"
    return f"{name}{max(rank - 2, 1)}d", (f"{shape[1]}?",), shape[1]


def _switch(kind: str, affine: tuple[int, int]) -> tuple[str, ...] | None:
    """The argument that gives torch's layer the same scale and shift; None where none does."""
    plain = kind in ("layer_norm", "rms_norm")
    whole = (1, 0) if kind == "rms_norm" else (1, 1)
    if affine == whole:
        return ("affine=True",) if kind == "instance_norm" else ()
    if affine == (0, 0):
        none = "elementwise_affine=False" if plain else "affine=False"
        return () if kind == "instance_norm" else (none,)
    return ("bias=False",) if affine == (1, 0) and kind == "layer_norm" else None


def _carries(found: ByHand) -> tuple[tuple[str, str], ...]:
    norm, path = found.norm, found.module
    pairs = [(name, "weight") for name in norm.scales] + [(name, "bias") for name in norm.shifts]
    if norm.kind == "batch_norm" and len(norm.tracked) == 2:
        mean, var = sorted(norm.tracked, key=lambda name: "mean" not in name.rpartition(".")[2])
        pairs += [(mean, "running_mean"), (var, "running_var")]
    return tuple((old, f"{path}.{new}".lstrip(".")) for old, new in pairs)
