"""`batch->none`: BatchNorm folded into the layer in front or behind, for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.facts import Node
from normdoctor.rewriting.batchlike import RUNNING, scale_and_shift
from normdoctor.rewriting.built import Rest
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.families import BATCH_LIKE
from normdoctor.rewriting.flow import Flow
from normdoctor.rewriting.fold import Map, fold_behind, fold_in_front, maps_behind, maps_in_front
from normdoctor.rewriting.ledger import Heir
from normdoctor.rewriting.scene import Scene
from normdoctor.rewriting.surgery import all_hooks

_ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
}


class BatchToNone(Conversion):
    """Exact in eval mode. In train mode the net has no norms any more."""

    spec = "batch->none"
    aliases = ("any->none", "frozen->none")
    families = BATCH_LIKE | {"frozen", "instance"}
    calls = frozenset({"batch_norm"})
    exact = frozenset({"eval"})
    own_state = RUNNING | {
        "weight", "bias", "eps", "affine", "activation", "backend", "statistics", "_tail",
    }  # fmt: skip
    traced = True

    def concerns(self, module: nn.Module) -> bool:
        """InstanceNorm only where running statistics make it fixed in eval mode."""
        fixed = module._buffers.get("running_mean") is not None
        return fixed or not isinstance(module, nn.modules.instancenorm._InstanceNorm)

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """Fold the layer away; what it was more than a norm stays."""
        old: Any = place.module
        scale, shift = scale_and_shift(old, affine=True)
        flow = scene.demand_flow()
        calls = flow.calls(old)
        _demand_plain(old, calls, flow)
        if not (_finite(scale) and _finite(shift)):
            raise Refused("its statistics are not finite")
        try:
            in_front = _in_front(old, calls, flow)
        except Refused as first:
            try:
                behind = _behind(old, calls, flow, shift, place.kind.tail)
            except Refused as second:
                raise Refused(f"{first}; {second}") from None
            for one in behind:
                made = fold_behind(one, scale, shift, scene.journal)
                _join(made, old, one, scene)
        else:
            bias = old._parameters.get("bias") if len(in_front) == 1 else None
            for one in in_front:
                made = fold_in_front(one, scale, shift, scene.journal, bias)
                if made is not None and made is bias:
                    where = f"{one.owner.path}." if one.owner.path else ""
                    scene.moved[f"{place.path}.bias" if place.path else "bias"] = f"{where}bias"
                _join(made, old, one, scene)
        flow.take_out(old)
        return _rest(old, place.kind.tail)


def _demand_plain(old: nn.Module, calls: list[Node], flow: Flow) -> None:
    if not calls:
        raise Refused("it is not called in eval mode, so there is nothing to fold it into")
    if all_hooks(old, "forward_pre", "backward", "backward_pre"):
        raise Refused("hooks of its own see its input or its gradient")
    path = flow.path(old)
    plain = all(call.role == "norm" for call in calls)
    if plain and any(node.scope == path and node.role == "add" for node in flow.nodes):
        raise Refused("it adds a residual")


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _in_front(old: nn.Module, calls: list[Node], flow: Flow) -> list[Map]:
    try:
        return maps_in_front(flow, calls)
    except Refused as reason:
        raise Refused(f"in front, {reason}") from None


def _behind(old: Any, calls: list[Node], flow: Flow, shift: Tensor, tail: tuple[str, ...]) -> list[Map]:
    if tail or getattr(old, "activation", None) is not None:
        raise Refused("behind, an activation follows")
    if all_hooks(old, "forward"):
        raise Refused("behind, forward hooks see its output")
    try:
        ends = [flow.exit(old, call) for call in calls]
        return maps_behind(flow, ends, bool(torch.any(shift != 0)))
    except Refused as reason:
        raise Refused(f"behind, {reason}") from None


def _join(made: nn.Parameter | None, old: nn.Module, one: Map, scene: Scene) -> None:
    if made is None or made is old._parameters.get("bias"):
        return
    beside = old._parameters.get("bias")
    weight = one.weight
    if beside is None and isinstance(weight, nn.Parameter):
        beside = weight
    if beside is not None:
        scene.heirs[id(made)] = Heir(beside)


def _rest(old: Any, tail: tuple[str, ...]) -> nn.Module:
    if tail:
        rest = Rest()
        vars(rest)["_tail"] = tail
        return rest
    activation = getattr(old, "activation", None)
    made: nn.Module = _ACTIVATIONS[activation]() if activation is not None else nn.Identity()
    return made
