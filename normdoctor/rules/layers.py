"""What rules ask of layers with weights and of norms, whichever way they were called."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import ModuleFact, Node, ParameterFact
from normdoctor.graph import Graph, Norm

CONVS = frozenset(f"conv{n}d" for n in (1, 2, 3))
TRANSPOSED = frozenset(f"conv_transpose{n}d" for n in (1, 2, 3))
DENSE = frozenset({"linear", "addmm"})
RECURRENT = frozenset(f"{cell}{form}" for cell in ("lstm", "gru", "rnn") for form in ("", "_cell"))
#: Kinds whose weights are factors of a matrix product or convolution with their input.
WEIGHTED = CONVS | TRANSPOSED | DENSE | RECURRENT | {"bilinear", "multi_head_attention", "matmul"}

BATCH_NORMS = frozenset(
    "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm "
    "LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d".split()
)
INSTANCE_NORMS = frozenset(
    "InstanceNorm1d InstanceNorm2d InstanceNorm3d "
    "LazyInstanceNorm1d LazyInstanceNorm2d LazyInstanceNorm3d".split()
)
NORMS = BATCH_NORMS | INSTANCE_NORMS | {"LayerNorm", "GroupNorm", "RMSNorm"}
CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})


def owner(graph: Graph, node: Node) -> ModuleFact | None:
    """The layer that a node belongs to: the leaf that it calls, or the subclass of one that calls it.

    `F.batch_norm` in the forward of a class that derives from BatchNorm2d belongs to that module.
    """
    if node.module is not None:
        return graph.modules.get(node.module)
    module = graph.modules.get(node.scope)
    return module if module is not None and module.base else None


def as_built(graph: Graph, node: Node, setting: str) -> bool:
    """Does a call work with this setting of the module that it belongs to, and not with one of its own?

    `F.batch_norm(..., eps=64)` in the forward of a subclass of BatchNorm2d does not.
    """
    module = owner(graph, node)
    return module is not None and node.config.get(setting) in (None, module.config.get(setting))


def parent(graph: Graph, path: str) -> ModuleFact | None:
    """The module that holds the one at `path`, None for the root."""
    while path:
        path = path.rpartition(".")[0]
        if path in graph.modules:
            return graph.modules[path]
    return None


def parents(graph: Graph, path: str) -> Iterator[ModuleFact]:
    """The modules around the one at `path`, innermost first."""
    while (module := parent(graph, path)) is not None:
        yield module
        path = module.path


def channels(graph: Graph, node: Node) -> tuple[int, int] | None:
    """(in, out) features or channels of a linear layer or convolution, None where unknown."""
    before = graph.input_tensor(node)
    if before is None or not before.shape or not node.shape:
        return None
    if node.kind in DENSE:
        return before.shape[-1], node.shape[-1]
    if node.kind in CONVS | TRANSPOSED:
        axis = -(int(node.kind[-2]) + 1)
        if len(before.shape) < -axis or len(node.shape) < -axis:
            return None
        return before.shape[axis], node.shape[axis]
    return None


def channel_axis(node: Node) -> int:
    """The axis of its output along which a linear layer or convolution writes its channels."""
    return -1 if node.kind in DENSE else -(int(node.kind[-2]) + 1)


def weight_of(graph: Graph, node: Node) -> ParameterFact | None:
    """The weight (two axes or more) that a node reads as such, None where it is computed."""
    found = [graph.parameters[name] for name in node.parameters if name in graph.parameters]
    weights = [one for one in found if len(one.tensor.shape) >= 2]
    named = [one for one in weights if one.attribute.endswith("weight")]
    return next(iter(named or weights), None)


def bias_of(graph: Graph, node: Node) -> ParameterFact | None:
    """The bias (one axis) that a linear layer or convolution reads, None where it has none."""
    found = [graph.parameters[name] for name in node.parameters if name in graph.parameters]
    return next((one for one in found if len(one.tensor.shape) == 1), None)


def of_one_sample(graph: Graph, node: Node) -> bool:
    """Was the batch folded into the channels in front of a BatchNorm, which makes an InstanceNorm of it?"""
    before = graph.nodes[node.inputs[0]]
    source = graph.through(before)
    return before.shape[:1] == (1,) and source.shape[:1] != (1,)


def scale_and_shift(node: Node) -> tuple[str | None, str | None]:
    """The names of the parameters that a norm multiplies with and adds: gamma and beta.

    A function's are told by their place among its arguments, whatever they are called.
    """
    names = list(node.parameters)
    if node.op == "call_function":
        statistics = 2 if node.config.get("track_running_stats") else 0
        wanted = [bool(node.config.get("affine")), bool(node.config.get("bias"))]
        if len(names) == statistics + sum(wanted):
            rest = iter(names[statistics:])
            scale, shift = (next(rest) if given else None for given in wanted)
            return scale, shift
    shift = next((name for name in names if name.endswith("bias")), None)
    return next((name for name in names if name.endswith("weight")), None), shift


def lengths(value: object) -> tuple[int, ...]:
    """A setting such as stride or kernel_size as a tuple."""
    if isinstance(value, int):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, int))
    return ()


def kernel_of(graph: Graph, node: Node) -> tuple[int, ...]:
    """The extents of a convolution's kernel; `()` for a linear layer or where unknown."""
    if found := lengths(node.config.get("kernel_size")):
        return found
    weight = weight_of(graph, node)
    return weight.tensor.shape[2:] if weight is not None and node.kind in CONVS | TRANSPOSED else ()


def strided(node: Node) -> bool:
    """Does a convolution change the resolution?"""
    return any(step != 1 for step in lengths(node.config.get("stride")))


def groups_of(node: Node) -> int:
    """The number of groups of a convolution."""
    value = node.config.get("groups", 1)
    return value if isinstance(value, int) else 1


def number(value: object) -> float | None:
    """A setting as a finite or infinite number; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if math.isnan(value) else float(value)


def tracks_statistics(graph: Graph, node: Node) -> bool:
    """Does this call of a norm know running statistics?"""
    module = owner(graph, node)
    if module is not None and "track_running_stats" in module.config:
        return bool(module.config["track_running_stats"])
    read = (graph.parameters.get(name) for name in node.parameters)
    return any(one is not None and one.kind != "parameter" for one in read)


def in_training(graph: Graph, node: Node) -> bool:
    """Is this call of a norm or dropout in training mode?"""
    module = owner(graph, node)
    if module is not None:
        return module.training
    return bool(node.config.get("training", graph.facts.training))


def frozen(graph: Graph, node: Node) -> bool:
    """Does this norm use its running statistics by design, while the model around it trains?

    In a model that is in eval mode every BatchNorm does so; that says nothing about its design.
    """
    if node.kind not in ("batch_norm", "instance_norm") or not tracks_statistics(graph, node):
        return False
    if graph.facts.training:
        return not in_training(graph, node)
    read = [graph.parameters[name] for name in node.parameters if name in graph.parameters]
    return bool(read) and all(one.kind != "parameter" for one in read) and node.module is None


def running(graph: Graph, norm: Norm) -> bool:
    """Does this norm keep running statistics, and is it not frozen by design?"""
    if norm.handwritten is not None:
        return norm.handwritten.running
    return tracks_statistics(graph, norm.output) and not frozen(graph, norm.output)


def uses_batch_statistics(graph: Graph, node: Node) -> bool:
    """Does this call of BatchNorm or InstanceNorm compute its statistics from its input?"""
    return not tracks_statistics(graph, node) or in_training(graph, node)


def count(amount: int, noun: str) -> str:
    """A number with its noun: `1 value`, `64 values`."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def beside(graph: Graph, first: Node, second: Node) -> str:
    """The name of one layer as seen from another, so that equal pairs share one message."""
    name, other = graph.label(first), graph.label(second)
    parts = name.split(".")
    common = 0
    for one, two in zip(parts[:-1], other.split("."), strict=False):
        if one != two:
            break
        common += 1
    short = ".".join(parts[common:])
    return name if not short or short.isdecimal() else short
