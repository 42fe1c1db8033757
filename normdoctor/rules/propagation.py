"""The variance of every activation, predicted from the weights alone, for standard normal input.

Mean field (Poole et al., 2016; Schoenholz et al., 2017): a linear layer with independent weights of
mean square s turns mean square q into fan_in * s * q plus the mean square of its bias; an activation
turns it into E f(z)^2 of a normal z; a norm resets it; independent branches add. Besides, the product
of two places of one unit (two positions of a map, or two samples) is followed: what they share is what
averaging over positions leaves. Where a step is not known, the prediction ends: a `None`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from normdoctor.facts import Node, WeightFact
from normdoctor.graph import PRESERVING, Graph
from normdoctor.rules.layers import (
    CONVS,
    DENSE,
    TRANSPOSED,
    bias_of,
    in_training,
    lengths,
    number,
    scale_and_shift,
    tracks_statistics,
)
from normdoctor.rules.moments import moments
from normdoctor.rules.weights import Use, is_direct, uses, values_of

#: Mean and variance of the largest of n standard normals, for windows of n places.
_LARGEST = {
    1: (0.0, 1.0),
    2: (0.56, 0.68),
    4: (1.03, 0.49),
    8: (1.42, 0.37),
    9: (1.49, 0.36),
    16: (1.77, 0.30),
}
_AVERAGES = frozenset(f"{how}avg_pool{n}d" for how in ("", "adaptive_") for n in "123")
_MONOTONE = frozenset({"relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "softplus"})
_MAXIMA = frozenset(f"{how}max_pool{n}d" for how in ("", "adaptive_") for n in "123")


class Signal(NamedTuple):
    """The values of an activation: their mean, mean square, and mean product at two places of a unit."""

    mean: float
    square: float
    shared: float

    @property
    def variance(self) -> float:
        """The variance over all values."""
        return max(self.square - self.mean * self.mean, 0.0)

    def scaled(self, factor: float) -> Signal:
        """The values times a factor."""
        return Signal(self.mean * factor, self.square * factor**2, self.shared * factor**2)


UNIT = Signal(0.0, 1.0, 0.0)


def predict(graph: Graph) -> list[Signal | None]:
    """The signal that each node returns, by index; None where it is not known."""
    found: list[Signal | None] = []
    for node in graph.nodes:
        try:
            signal = _step(graph, node, found)
        except OverflowError:
            signal = None
        known = signal is not None and all(math.isfinite(value) for value in signal)
        found.append(signal if known else None)
    return found


def _step(graph: Graph, node: Node, found: list[Signal | None]) -> Signal | None:
    if node.op == "placeholder":
        floating = bool(node.outputs) and node.outputs[0].dtype.startswith(("float", "bfloat"))
        return UNIT if floating else None
    if node.kind == "embedding":
        return _embedding(graph, node)
    inputs = [found[index] for index in node.inputs]
    if not inputs or inputs[0] is None:
        return _reset(graph, node) if graph.norm_at(node) is not None else None
    first = inputs[0]
    if graph.norm_at(node) is not None:
        return _normalized(graph, node, first)
    if node.kind in CONVS | TRANSPOSED | DENSE or node.kind in ("matmul", "einsum"):
        return _linear(graph, node, first)
    if node.role == "activation":
        return _activated(graph, node, first)
    if (
        node.kind in PRESERVING
        or node.kind in _KEEPING
        or (node.role == "dropout" and not _drops(graph, node))
    ):
        return first
    if node.role == "dropout":
        keep = 1 - (number(node.config.get("p")) or 0.0)
        return Signal(first.mean, first.square / keep, first.shared) if keep > 0 else None
    if node.role == "pool" or node.kind in ("mean", "amax"):
        source = graph.nodes[node.inputs[0]]
        before = found[source.inputs[0]] if source.kind in _MONOTONE and len(source.inputs) == 1 else None
        if before is not None and (node.kind in _MAXIMA or node.kind == "amax"):
            # max(f(x)) = f(max(x)), and x is nearer to a normal than f(x).
            largest = _pooled(graph, node, before)
            return _activated(graph, source, largest) if largest is not None else None
        return _pooled(graph, node, first)
    return _combined(graph, node, inputs)


#: Kinds whose output holds values of the input, some or all of them, some of them more than once.
_KEEPING = frozenset(
    "getitem chunk split unbind narrow select slice roll flip tile repeat repeat_interleave expand "
    "expand_as broadcast_to unfold pad interpolate index_select gather".split()
)


def _drops(graph: Graph, node: Node) -> bool:
    return bool(node.config.get("p")) and in_training(graph, node)


def _embedding(graph: Graph, node: Node) -> Signal | None:
    tables = [value for name in node.parameters if (value := values_of(graph, name)) is not None]
    if len(tables) != 1:
        return None
    return Signal(tables[0].mean, tables[0].mean_square, tables[0].mean ** 2)


def _linear(graph: Graph, node: Node, first: Signal) -> Signal | None:
    weights = uses(graph, node)
    if len(weights) != 1 or not weights[0].direct or len(node.inputs) != 1:
        return None
    value = values_of(graph, weights[0].parameter.name)
    if value is None or _computed(graph, node, weights[0]):
        return None
    fan = weights[0].fan_in
    # A mean that chance explains is none: times fan-in it would count for more than the values.
    centre = value.mean if abs(value.mean) > max(0.1 * value.std, 5 * value.std / _sampled(value)) else 0.0
    # Weights with a mean carry the mean of the input through, on top of the independent part.
    square = fan * value.std**2 * first.square
    shared = fan * value.std**2 * first.shared
    mean = centre * fan * first.mean
    square, shared = square + mean * mean + fan * centre**2 * first.variance, shared + mean * mean
    bias = _bias(graph, node)
    if bias is None:
        return None
    offset, power = bias
    cross = 2 * mean * offset
    return Signal(mean + offset, square + power + cross, shared + power + cross)


def _sampled(value: WeightFact) -> float:
    """The root of the number of values that the mean was taken over."""
    return math.sqrt(min(value.count, 8192))


def _computed(graph: Graph, node: Node, use: Use) -> bool:
    """Is the weight made from this parameter by a reparametrization?"""
    module = graph.modules.get(node.module or "")
    return module is not None and bool(module.reparametrized)


def _bias(graph: Graph, node: Node) -> tuple[float, float] | None:
    """(mean, mean square) of a layer's bias; zeros where it has none, None where its values are unknown."""
    parameter = bias_of(graph, node)
    if parameter is None:
        return 0.0, 0.0
    value = values_of(graph, parameter.name)
    return (value.mean, value.mean_square) if value is not None else None


def _activated(graph: Graph, node: Node, first: Signal) -> Signal | None:
    if node.kind == "glu":
        gate = moments("sigmoid", {}, first.mean, first.variance, 0.0)
        return (
            None
            if gate is None
            else Signal(first.mean * gate.mean, first.square * gate.square, first.shared * gate.mean**2)
        )
    variance = first.variance
    correlation = (first.shared - first.mean**2) / variance if variance > 0 else 1.0
    config = node.config
    if node.kind == "prelu":
        slopes = [value for name in node.parameters if (value := values_of(graph, name)) is not None]
        config = {"negative_slope": slopes[0].mean} if slopes else {}
    got = moments(node.kind, config, first.mean, variance, min(max(correlation, 0.0), 1.0))
    return None if got is None else Signal(*got)


def _affine(graph: Graph, node: Node) -> tuple[float, float, float, float] | None:
    """(mean, mean square) of gamma and of beta, where the norm's parameters are read as they are."""
    gamma, beta = (1.0, 1.0), (0.0, 0.0)
    norm = graph.norm_at(node)
    names = list(node.parameters)
    _, shift = scale_and_shift(node)
    if norm is not None and norm.handwritten is not None:
        names = [name for index in norm.handwritten.nodes for name in graph.nodes[index].parameters]
    for name in names:
        parameter = graph.parameters.get(name)
        if parameter is None or parameter.kind != "parameter":
            continue
        value = values_of(graph, name)
        if value is None:
            return None
        if norm is not None and norm.handwritten is not None:
            # Gamma may be stored as gamma - 1; a hand-written norm starts at unit scale either way.
            continue
        if not is_direct(graph, node, parameter):
            return None
        if name == shift or parameter.attribute.endswith("bias"):
            beta = (value.mean, value.mean_square)
        else:
            gamma = (value.mean, value.mean_square)
    return (*gamma, *beta)


def _reset(graph: Graph, node: Node) -> Signal | None:
    """What a norm makes of a signal of which nothing is known."""
    if node.kind == "batch_norm" and not in_training(graph, node) and tracks_statistics(graph, node):
        return None
    return _normalized(graph, node, UNIT)


def _normalized(graph: Graph, node: Node, first: Signal) -> Signal | None:
    norm = graph.norm_at(node)
    affine = _affine(graph, node)
    if norm is None or affine is None or norm.kind in ("normalize", "local_response_norm", ""):
        return None
    scale, power, offset, spread = affine
    batch = norm.kind in ("batch_norm", "instance_norm")
    if batch and not in_training(graph, node) and tracks_statistics(graph, node) and norm.handwritten is None:
        statistics = _running(graph, node)
        if statistics is None:
            return None
        centre, variance, drift = statistics
        eps = number(node.config.get("eps")) or 1e-5
        square = (first.square - 2 * first.mean * centre + drift) / (variance + eps)
        shared = (first.shared - 2 * first.mean * centre + drift) / (variance + eps)
        mean = (first.mean - centre) / math.sqrt(variance + eps)
    elif norm.kind == "rms_norm":
        root = math.sqrt(first.square) or 1.0
        mean, square, shared = first.mean / root, 1.0, first.shared / root**2
    else:
        # BatchNorm and InstanceNorm take away what the places of a channel share, LayerNorm does not.
        variance = first.variance or 1.0
        rest = 0.0 if batch else max(first.shared - first.mean**2, 0.0) / variance
        mean, square, shared = 0.0, 1.0, min(rest, 1.0)
    cross = 2 * scale * mean * offset
    return Signal(scale * mean + offset, power * square + spread + cross, power * shared + spread + cross)


def _running(graph: Graph, node: Node) -> tuple[float, float, float] | None:
    """(mean of the running means, mean of the running variances, mean square of the running means)."""
    read = {graph.parameters[name].attribute: name for name in node.parameters if name in graph.parameters}
    if node.module is not None and (module := graph.modules.get(node.module)) is not None:
        read |= {name.rpartition(".")[2]: name for name in module.parameters}
    centre = values_of(graph, read.get("running_mean", ""))
    variance = values_of(graph, read.get("running_var", ""))
    if centre is None or variance is None:
        return None
    return centre.mean, variance.mean, centre.mean_square


def _pooled(graph: Graph, node: Node, first: Signal) -> Signal | None:
    before = graph.input_tensor(node)
    if before is None or (not node.shape and node.kind != "mean"):
        return None
    if node.kind in _AVERAGES or node.kind in _MAXIMA:
        area = _window(node, before.shape)
    else:
        area = max(before.size // max(node.outputs[0].size if node.outputs else 1, 1), 1)
    own = max(first.square - first.shared, 0.0)
    if node.kind in _AVERAGES or node.kind == "mean":
        return Signal(first.mean, first.shared + own / area, first.shared)
    if node.kind in _MAXIMA or node.kind == "amax":
        nearest = min(_LARGEST, key=lambda size: abs(math.log(size / area)))
        shift, narrow = _LARGEST[nearest]
        move = shift * math.sqrt(own)
        mean = first.mean + move
        shared = first.shared + 2 * first.mean * move + move * move
        return Signal(mean, shared + narrow * own, shared)
    return None


def _window(node: Node, shape: tuple[int, ...]) -> int:
    axes = int(node.kind[-2])
    if node.kind.startswith("adaptive"):
        return max(math.prod(shape[-axes:]) // max(math.prod(node.shape[-axes:]), 1), 1)
    kernel = lengths(node.config.get("kernel_size"))
    if not kernel:
        return max(math.prod(shape[-axes:]) // max(math.prod(node.shape[-axes:]), 1), 1)
    return math.prod(kernel) if len(kernel) == axes else kernel[0] ** axes


def _combined(graph: Graph, node: Node, inputs: list[Signal | None]) -> Signal | None:
    """Sums, products and concatenations of independent signals, and of a signal and a number."""
    known = [signal for signal in inputs if signal is not None]
    if len(known) != len(inputs):
        return None
    first = known[0]
    if node.role == "concat":
        sizes = [graph.nodes[index].outputs[0].size for index in node.inputs if graph.nodes[index].outputs]
        if len(sizes) != len(known) or not sum(sizes):
            return None
        parts = [size / sum(sizes) for size in sizes]
        mixed = zip(parts, known, strict=True)
        mean, square, shared = (
            sum(part * value for part, value in items)
            for items in zip(*(((part, value) for value in signal) for part, signal in mixed), strict=True)
        )
        return Signal(mean, square, shared)
    scalar = number(node.config.get("scalar"))
    if len(known) == 1 and not node.parameters and scalar is not None:
        return _with_number(node.kind, first, scalar)
    if len(known) == 1 and len(node.parameters) == 1:
        return _with_parameter(graph, node, first)
    if len(known) != 2 or node.parameters:
        return None
    second = known[1]
    if node.kind in ("add", "sub"):
        if node.inputs[0] == node.inputs[1]:
            return first.scaled(2.0) if node.kind == "add" else None
        sign = number(node.config.get("alpha")) or 1.0
        return _sum(first, second.scaled(-sign if node.kind == "sub" else sign))
    if node.kind == "mul":
        if node.inputs[0] == node.inputs[1]:
            return Signal(first.square, 3 * first.square**2, first.square**2)
        return Signal(first.mean * second.mean, first.square * second.square, first.shared * second.shared)
    return None


def _sum(first: Signal, second: Signal) -> Signal:
    cross = 2 * first.mean * second.mean
    return Signal(
        first.mean + second.mean, first.square + second.square + cross, first.shared + second.shared + cross
    )


def _with_number(kind: str, first: Signal, scalar: float) -> Signal | None:
    if kind in ("add", "sub"):
        return _sum(first, Signal(*(scalar if kind == "add" else -scalar, scalar**2, scalar**2)))
    if kind == "mul":
        return first.scaled(scalar)
    if kind == "div" and scalar:
        return first.scaled(1 / scalar)
    return None


def _with_parameter(graph: Graph, node: Node, first: Signal) -> Signal | None:
    """A scale or an offset that is learned: layer scale, position embedding, a bias added by hand."""
    parameter = graph.parameters.get(node.parameters[0])
    value = values_of(graph, node.parameters[0])
    if parameter is None or value is None or not is_direct(graph, node, parameter):
        return None
    if node.kind == "add":
        return _sum(first, Signal(value.mean, value.mean_square, value.mean_square))
    if node.kind == "mul":
        return Signal(
            first.mean * value.mean, first.square * value.mean_square, first.shared * value.mean_square
        )
    return None
