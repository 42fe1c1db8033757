"""Faults of activations and of the signal, ND601 to ND615."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .scenes import (
    ACTIVATION,
    ATTENTION,
    GATE,
    NORM,
    Attending,
    Checked,
    Normed,
    Plain,
    Relu,
    Relu6,
    Tanh,
    path_of,
)
from .table import fault

Sequential, Residual, Transformer, Mixer, Recurrent = (
    getattr(ACTIVATION, name) for name in "Sequential Residual Transformer Mixer Recurrent".split()
)
NETS = ACTIVATION.NETS
#: The layer at which a fault is planted in each net.
AT = {Sequential: 2, Residual: 3, Transformer: 1, Mixer: 4, Recurrent: 1}


def layer(scene: Any) -> Any:
    return scene.model.layers[AT[scene.net]]


def itself(scene: Any) -> str:
    """The layer of the fault."""
    return path_of(scene.model, layer(scene))


def behind(scene: Any) -> str:
    """The activation behind it: a module, or a function that is named by the layer."""
    return scene.model.place(AT[scene.net]) or itself(scene)


@fault("ND601", Relu, NETS)
def half_of_the_units_dead(scene: Relu) -> str:
    bias = layer(scene).bias
    bias[: len(bias) // 2] = -100.0
    return behind(scene)


@fault("ND602", Relu, NETS, beside="ND606")
def no_unit_is_active(scene: Relu) -> str:
    layer(scene).bias.fill_(-100.0)
    return behind(scene)


@fault("ND603", Tanh, [*NETS, Recurrent], beside="ND607")
def weights_that_saturate(scene: Tanh) -> str:
    layer(scene).weight.mul_(1e4)
    return behind(scene)


@fault("ND604", Relu, NETS, beside="ND601")
def a_bias_that_keeps_all_units_on(scene: Relu) -> str:
    layer(scene).bias.fill_(30.0)
    return behind(scene)


@fault("ND605", Relu, NETS, beside="ND601")
def half_of_the_weights_zero(scene: Relu) -> str:
    planted = layer(scene)
    half = len(planted.weight) // 2
    planted.weight[:half] = 0
    planted.bias[:half] = 0.7
    return itself(scene)


@fault("ND606", Relu, [Sequential, Residual, Transformer, Recurrent], beside="ND607 ND605")
def rows_that_are_alike_before_the_head(scene: Relu) -> str:
    model = scene.model
    last = {Sequential: lambda: [model[8]], Residual: lambda: [model.narrow]}.get(
        scene.net, lambda: [model.norm] if scene.net is Transformer else [model.into, model.over]
    )()
    for one in last:
        one.weight.mul_(1e-6)
    last[0].bias.uniform_(0.5, 1.0)
    return "10" if scene.net is Sequential else "head"


@fault("ND607", Relu, NETS)
def one_layer_with_weights_far_too_large(scene: Relu) -> str:
    model = scene.model
    planted = {Residual: "second.1", Transformer: "blocks.1.1.fc2", Mixer: "down.1"}.get(scene.net)
    planted = planted or itself(scene)
    model.get_submodule(planted).weight.mul_(1e4 if scene.net is Mixer else 1e3)
    return planted


class Root(nn.Module):
    """An activation that has no value below zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


@fault("ND608", Relu, NETS)
def a_root_of_negative_numbers(scene: Relu) -> str:
    if scene.net is Sequential:
        scene.model[5] = Root()
        return "5"
    if scene.net is Transformer:
        scene.model.blocks[1][1].act = Root()
        return "blocks.1.1.act"
    scene.model.act = Root().forward
    return "return torch.sqrt(x)"


@fault("ND609", Relu, NETS, beside="ND607")
def values_beyond_half_precision(scene: Relu) -> str:
    layer(scene).weight.mul_(1e6)
    return itself(scene)


@fault("ND610", Relu, NETS, beside="ND601 ND606 ND607")
def one_unit_far_larger_than_the_others(scene: Relu) -> str:
    layer(scene).bias[0] = 2e4
    return itself(scene)


@fault("ND611", Relu6, NETS, beside="ND607")
def weights_that_clip(scene: Relu6) -> str:
    layer(scene).weight.mul_(60.0)
    return behind(scene)


@fault(
    "ND612",
    Attending,
    [ATTENTION.ByHand, ATTENTION.Module, ATTENTION.Fused, ATTENTION.Multihead, ATTENTION.Encoder],
)
def queries_far_too_large(scene: Attending) -> str:
    model = scene.model
    mha = next((one for one in model.modules() if isinstance(one, nn.MultiheadAttention)), None)
    if mha is not None:
        mha.in_proj_weight[: ATTENTION.D] *= 400
        return path_of(model, mha)
    model.gain = 400.0
    return {
        ATTENTION.ByHand: "return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(D // 4), -1) @ v",
        ATTENTION.Fused: "return F.scaled_dot_product_attention(*self.heads(x))",
    }.get(scene.net, "softmax")


@fault("ND613", Plain, GATE.NETS)
def a_gate_that_is_open_for_every_input(scene: Checked) -> str:
    scene.model.gate.bias.fill_(200.0)
    return str(scene.net.place)  # type: ignore[attr-defined]


class Offset(nn.Module):
    """Adds one number to everything."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e3


@fault("ND614", Normed, NORM.NETS, beside="ND702 ND703")
def an_offset_before_a_norm(scene: Normed) -> str:
    first = scene.net.places[0]  # type: ignore[attr-defined]
    if scene.net is NORM.Functional:
        scene.model.norm1 = nn.Sequential(Offset(), scene.model.norm1)
        return "norm1.1"
    layer = scene.model.get_submodule({NORM.Plain: "net.0", NORM.Dense: "fc", NORM.Sequence: "a"}[scene.net])
    layer.bias = nn.Parameter(torch.full((len(layer.weight),), 1e3))
    return str(first)


@fault("ND615", Relu, [Sequential, Residual, Transformer, Recurrent], beside="ND601 ND607")
def pixels_as_they_are(scene: Relu) -> str:
    scene.data = [x * 70 + 120 for x in scene.data]
    return {Sequential: "0", Residual: "stem", Transformer: "patch"}.get(scene.net, "embed")
