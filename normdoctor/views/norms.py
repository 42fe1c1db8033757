"""The norms of a model, one row each: what they normalize over, and with which settings."""

from __future__ import annotations

from typing import Any

import msgspec

from normdoctor.facts import Location
from normdoctor.graph import Graph
from normdoctor.views.inventory import Layer, Layers


class NormRow(msgspec.Struct, frozen=True, kw_only=True):
    """One norm: a module, the call of a function, or code that computes one.

    Args:
        module: Its path, or that of the module in whose forward it stands.
        type: The class of the module, and which of torch's it is or computes; else the function's name.
        kind: Which norm, in torch.nn.functional's words: `batch_norm`; empty where it never ran.
        size: The channels of a batch, group or instance norm, `normalized_shape` of a layer or RMS norm;
            `()` where it is not known.
        groups: The groups of a group norm, 0 for others.
        eps: Its epsilon; None for none, or one that follows from the type of the input.
        momentum: The share of a new batch in the running statistics; None for norms without, and where they
            are plain averages.
        affine: It scales or shifts what it has normalized.
        running: It has running statistics.
        mode: `train` or `eval`; empty for a function.
        output: The shape of what it hands on; `()` where it never ran.
        calls: How often it ran in the recorded forward.
        parameters: How many parameters it has.
        by_hand: It is code of the user's.
        location: Where it was built, otherwise the call.
    """

    module: str
    type: str
    kind: str = ""
    size: tuple[int, ...] = ()
    groups: int = 0
    eps: float | None = None
    momentum: float | None = None
    affine: bool = False
    running: bool = False
    mode: str = ""
    output: tuple[int, ...] = ()
    calls: int = 1
    parameters: int = 0
    by_hand: bool = False
    location: Location | None = None


def norm_rows(graph: Graph) -> tuple[NormRow, ...]:
    """All norms: those that ran in the order of execution, then the others."""
    layers = Layers(graph)
    return tuple(_row(layers, layer) for layer in layers if layer.kind == "norm")


def _row(layers: Layers, layer: Layer) -> NormRow:
    graph, norm, config, module = layers.graph, layer.norm, layer.config, layer.module
    last = graph.nodes[norm.output] if norm is not None else layer.nodes[-1] if layer.nodes else None
    kind = norm.kind if norm is not None else next((n.kind for n in layer.nodes if n.role == "norm"), "")
    scales = norm.scales + norm.shifts if norm is not None else ()
    running = config.get("track_running_stats", False)
    function = module is None or (module.role != "norm" and norm is None)  # one with a module's parameters
    return NormRow(
        module=layer.path,
        type=kind if function and norm is None else layers.what(layer),
        kind=kind,
        size=_size(layers, layer),
        groups=int(config.get("num_groups") or (norm.groups if norm is not None else 0)),
        eps=_number(norm.eps if norm is not None else config.get("eps")),
        momentum=_number(config.get("momentum")) if running else None,
        affine=bool(scales) if norm is not None else _affine(layers, layer),
        running=norm.running if norm is not None else bool(running),
        mode="" if function and norm is None else layer.mode,
        output=last.shape if last is not None else (),
        calls=layer.calls,
        parameters=_held(layers, layer) if function else layers.size(layer.path),
        by_hand=norm is not None,
        location=layer.location,
    )


def _size(layers: Layers, layer: Layer) -> tuple[int, ...]:
    """What one set of scales would cover: channels, or the normalized shape."""
    config, parameters = layer.config, layers.graph.parameters
    held = config.get("normalized_shape", config.get("num_features", config.get("num_channels")))
    if isinstance(held, int):
        return (held,)
    if isinstance(held, list | tuple) and all(isinstance(length, int) for length in held):
        return tuple(held)
    names = layer.norm.scales if layer.norm is not None else ()
    names += layer.nodes[0].parameters if layer.nodes else ()
    names += layer.module.parameters if layer.module is not None else ()
    shapes = [parameters[name].tensor.shape for name in names if name in parameters]
    return next((shape for shape in shapes if shape), ())


def _held(layers: Layers, layer: Layer) -> int:
    """How many parameters the calls of a function read."""
    names = {name for node in layer.nodes for name in node.parameters}
    known = (layers.graph.parameters[name] for name in names if name in layers.graph.parameters)
    return sum(one.tensor.size for one in known if one.kind == "parameter")


def _affine(layers: Layers, layer: Layer) -> bool:
    known = layer.config.get("affine", layer.config.get("elementwise_affine"))
    return bool(layers.weights(layer.module)) if known is None else bool(known)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, float | int) and not isinstance(value, bool) else None
