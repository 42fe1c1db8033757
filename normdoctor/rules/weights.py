"""Weights as the graph uses them: fans, units, and the initialization that their values match."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from normdoctor.facts import InitFact, Location, ModuleFact, Node, ParameterFact, WeightFact
from normdoctor.graph import Graph
from normdoctor.rules.layers import (
    CONVS,
    DENSE,
    RECURRENT,
    TRANSPOSED,
    WEIGHTED,
    groups_of,
    lengths,
    weight_of,
)

#: Standard deviation of a standard normal that is cut at two standard deviations.
CUT_AT_2 = 0.87962566
#: sqrt(fan * mean square) of the schemes of torch.nn.init, which fan they take, and their names.
_SCHEMES = (
    (math.sqrt(2.0), "in", "kaiming", "fan_in"),
    (math.sqrt(2.0), "out", "kaiming", "fan_out"),
    (1.0, "mean", "xavier", ""),
    (1.0, "in", "lecun", "fan_in"),
    (math.sqrt(2.0), "out/groups", "kaiming", "fan_out of a group"),
    (5 / 3, "mean", "xavier", "gain 5/3"),
    (math.sqrt(2.0), "mean", "xavier", "gain sqrt 2"),
    (5 / 3, "in", "kaiming", "tanh"),
)


class Use(NamedTuple):
    """A weight as one node uses it.

    `fan_in` is the number of products that are summed into one value of the output, `fan_out` the
    number of output values that one value of the input goes into; a strided transposed convolution
    sums in_channels / groups * kernel / stride of them. `units` is the number of units that read the
    same input, `axis` where they lie in the weight. `direct` is false for a weight that is computed
    from the parameter (a softmax of it), whose values then say nothing about the factor.
    """

    node: Node
    parameter: ParameterFact
    fan_in: float
    fan_out: float
    units: int
    axis: int
    direct: bool = True


def uses(graph: Graph, node: Node) -> list[Use]:
    """The weights of a layer, convolution, recurrent layer, attention or product with a parameter."""
    if node.kind in RECURRENT or node.kind in ("multi_head_attention", "bilinear"):
        return list(_of_module(graph, node))
    if node.kind in ("matmul", "einsum"):
        return list(_of_product(graph, node))
    if node.kind not in CONVS | TRANSPOSED | DENSE:
        return []
    weight = weight_of(graph, node)
    if weight is None or (weight.kind != "parameter" and not weight.trainable and node.module is None):
        return []
    weight = _factor(graph, node, weight)
    shape, groups = weight.tensor.shape, groups_of(node)
    direct = is_direct(graph, node, weight)
    if node.kind in CONVS:
        area = math.prod(shape[2:])
        return [Use(node, weight, shape[1] * area, shape[0] / groups * area, shape[0] // groups, 0, direct)]
    if node.kind in TRANSPOSED:
        area = math.prod(shape[2:])
        step = lengths(node.config.get("stride")) or (1,)
        strides = math.prod(step) if len(step) == len(shape) - 2 else step[0] ** (len(shape) - 2)
        fan_in = shape[0] / groups * area / strides
        return [Use(node, weight, fan_in, shape[1] * area, shape[1], 1, direct)]
    before = graph.input_tensor(node)
    length = before.shape[-1] if before is not None and before.shape else shape[-1]
    flipped = node.kind == "addmm" or (shape[-1] != length == shape[0])
    into, out = (shape[0], shape[-1]) if flipped else (shape[-1], shape[0])
    return [Use(node, weight, into, out, out, 1 if flipped else 0, direct)]


def _factor(graph: Graph, node: Node, weight: ParameterFact) -> ParameterFact:
    """Of a weight in two factors (weight_norm), the one that holds the direction."""
    read = [graph.parameters[name] for name in node.parameters if name in graph.parameters]
    matrices = [one for one in read if one.kind == "parameter" and len(one.tensor.shape) >= 2]
    return max(matrices, key=lambda one: one.tensor.size, default=weight)


def _of_module(graph: Graph, node: Node) -> Iterator[Use]:
    for name in node.parameters:
        one = graph.parameters.get(name)
        if one is None or one.kind != "parameter" or len(one.tensor.shape) < 2:
            continue
        shape = one.tensor.shape
        yield Use(node, one, math.prod(shape[1:]), shape[0], shape[0], 0)


def _of_product(graph: Graph, node: Node) -> Iterator[Use]:
    operands = node.config.get("operands")
    if not isinstance(operands, list | tuple) or len(operands) != 2:
        return
    for place, operand in enumerate(operands):
        through: Node | None = None
        name = operand
        if isinstance(operand, int) and not isinstance(operand, bool):
            through = graph.nodes[operand]
            if through.role != "parameter" or len(through.parameters) != 1:
                continue
            name = through.parameters[0]
        one = graph.parameters.get(name) if isinstance(name, str) else None
        if one is None:
            continue
        shape = through.shape if through is not None else one.tensor.shape
        if len(shape) < 2 or len(one.tensor.shape) < 2:
            continue
        direct = through is None or is_direct(graph, node, one)
        fans = _equation(node, place, shape) if node.kind == "einsum" else None
        if node.kind == "einsum":
            if fans is not None:
                yield Use(node, one, *fans, units=int(fans[1]), axis=-1, direct=direct)
            continue
        into, out = (shape[-2], shape[-1]) if place else (shape[-1], shape[-2])
        turned = through is not None and shape != one.tensor.shape
        axis = -1 if turned or len(shape) > 2 else place
        yield Use(node, one, into, out, out, axis, direct)


def _equation(node: Node, place: int, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """(summed, kept) lengths of the parameter's axes in `bc,cd->bd`."""
    text = str(node.config.get("equation", "")).replace(" ", "")
    left, _, right = text.partition("->")
    terms = left.split(",")
    if "." in text or len(terms) != 2 or not right or len(terms[place]) != len(shape):
        return None
    sizes = dict(zip(terms[place], shape, strict=True))
    other = terms[1 - place]
    summed = math.prod(length for letter, length in sizes.items() if letter not in right)
    kept = math.prod(length for letter, length in sizes.items() if letter in right and letter not in other)
    return float(summed), float(kept)


def is_direct(graph: Graph, node: Node, parameter: ParameterFact) -> bool:
    """Are the parameter's values the factors themselves, at most reshaped and transposed?"""
    for reader in graph.functional_readers.get(parameter.name, ()):
        if reader.role == "parameter" and reader.index < node.index and not graph.transparent(reader):
            return False
    module = graph.modules.get(node.module or "")
    return module is None or parameter.attribute not in ("weight_g", "original0")


def all_uses(graph: Graph) -> list[Use]:
    """Every use of a weight, in execution order."""
    return [use for node in graph.nodes for use in uses(graph, node)]


def origin_of(graph: Graph, parameter: ParameterFact) -> Location | None:
    """The line that made a parameter: its own, else where its module was built."""
    if parameter.origin is not None:
        return parameter.origin
    module = graph.modules.get(parameter.module)
    return module.origin if module is not None else None


def destinations(
    graph: Graph, node: Node, through: frozenset[str], joins: frozenset[str] = frozenset()
) -> set[str]:
    """Where the output of a layer goes, past nodes of these roles.

    With `linear` among them it goes past other layers, with `scale` past products with a number. It goes
    past nodes of the roles in `joins` where all that they join was computed from this output alone. The
    answers are `layer` for another layer with weights, `output`, or the role of what else reads it.
    """
    found: set[str] = set()
    apart = _apart(graph, node) if joins else frozenset[int]()
    stack, seen = [node], {node.index}
    while stack:
        for reader in graph.users(stack.pop()):
            if reader.index in seen:
                continue
            seen.add(reader.index)
            if reader.op == "output":
                found.add("output")
            elif graph.norm_at(reader) is not None and "norm" not in through:
                found.add("norm")
            elif (
                "linear" not in through
                and reader.kind in WEIGHTED
                and (reader.parameters or reader.kind != "matmul")
            ):
                found.add("layer")
            elif (
                reader.role in through
                or graph.transparent(reader)
                or _scales(reader, through)
                or (reader.role in joins and not reader.parameters and apart.isdisjoint(reader.inputs))
            ):
                stack.append(reader)
            else:
                found.add(reader.role)
    return found


def _apart(graph: Graph, node: Node) -> frozenset[int]:
    """The nodes that depend on something besides the output of this one."""
    found: set[int] = set()
    for one in graph.nodes:
        if one.index != node.index and (not one.inputs or not found.isdisjoint(one.inputs)):
            found.add(one.index)
    return frozenset(found)


def _scales(node: Node, through: frozenset[str]) -> bool:
    """Does it multiply its only input by a number, and are such products gone past?"""
    return (
        "scale" in through and node.kind in ("mul", "div") and len(node.inputs) == 1 and not node.parameters
    )


def looks_trained(graph: Graph, *, most: float = 0.5) -> bool:
    """Do more than this share of the larger weights match no initialization?

    The distributions of trained weights have longer tails than those that weights are drawn from.
    """
    judged = {}
    for use in all_uses(graph):
        value = values_of(graph, use.parameter.name)
        if value is not None and value.init is not None and value.count >= 256:
            judged[use.parameter.name] = not value.init.distribution
    return share(judged.values()) > most


def values_of(graph: Graph, name: str) -> WeightFact | None:
    """The statistics of a parameter that holds finite values somebody wrote."""
    value = (graph.facts.weights or {}).get(name)
    return value if value is not None and value.finite and not value.uninitialized else None


def torch_fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) as torch.nn.init reads them off a shape, whatever layer it belongs to."""
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


def default_bound(shape: tuple[int, ...], module: ModuleFact | None, attribute: str) -> float | None:
    """The bound of the uniform distribution that torch's own layer draws this parameter from."""
    base = module.base if module is not None else ""
    hidden = module.config.get("hidden_size") if module is not None else None
    if isinstance(hidden, int) and hidden > 0:
        return float(hidden**-0.5)
    if len(shape) < 2 or base in ("Embedding", "EmbeddingBag"):
        return None
    if base == "MultiheadAttention" and attribute != "out_proj.weight":
        into, out = torch_fans(shape)
        return math.sqrt(6 / (into + out))
    if base == "Bilinear":
        return float(shape[1] ** -0.5)
    return float(torch_fans(shape)[0] ** -0.5)


def is_default(graph: Graph, parameter: ParameterFact) -> bool:
    """Do the values match what torch's own layer starts with?"""
    value = values_of(graph, parameter.name)
    module = graph.modules.get(parameter.module)
    if value is None or len(parameter.tensor.shape) < 2:
        return False
    if module is not None and module.base in ("Embedding", "EmbeddingBag"):
        init = value.init
        return init is not None and init.distribution == "normal" and abs(init.std - 1) < 0.05
    bound = default_bound(parameter.tensor.shape, module, parameter.attribute)
    return bound is not None and _bounded(value, bound)


def _bounded(value: WeightFact, bound: float) -> bool:
    """Of n uniform values the largest lies within 12 / n of the bound but for one case in 160,000."""
    low, high = bound * (1 - min(24 / value.count, 0.9)), bound * 1.005
    spread = bound / math.sqrt(3)
    return (
        low <= max(-value.minimum, value.maximum) <= high
        and abs(value.std / spread - 1) < 0.02 + 2.5 / math.sqrt(value.count)
        and (value.init is None or value.init.distribution in ("uniform", "truncated_normal", "normal"))
    )


def is_random(value: WeightFact | None) -> bool:
    """Do the values match a distribution that weights are drawn from?"""
    return (
        value is not None
        and value.init is not None
        and value.init.distribution in ("uniform", "normal", "truncated_normal", "orthogonal")
    )


def described(value: WeightFact, shape: tuple[int, ...], module: ModuleFact | None, attribute: str) -> str:
    """The initialization that values match, in a few words; `""` where nothing is known of them."""
    if value.uninitialized:
        return "never written"
    if not value.finite:
        return "not finite"
    init = value.init
    if init is None:
        return ""
    kind = init.distribution
    if kind == "constant":
        return {0.0: "zeros", 1.0: "ones"}.get(init.low, f"constant {init.low:.4g}")
    if kind in ("identity", "dirac", "orthogonal"):
        return kind if abs(init.high - 1) < 1e-3 else f"{kind}, gain {init.high:.3g}"
    if not kind:
        return f"no known distribution, std {value.std:.3g}"
    bound = default_bound(shape, module, attribute)
    if kind == "uniform":
        reach = max(-init.low, init.high)
        if init.low >= 0 or init.high <= 0 or abs(init.low + init.high) > 0.1 * reach:
            low, high = (0.0 if abs(end) < 0.005 * reach else end for end in (init.low, init.high))
            return f"uniform in [{low:.3g}, {high:.3g}]"
        text = f"uniform, bound {reach:.3g}"
        if bound is not None and _bounded(value, bound):
            base = module.base if module is not None else ""
            return f"{text}: torch's default" if base else f"{text}: kaiming (a = sqrt 5)"
    else:
        cut = f", cut at {max(-init.low, init.high) / init.std:.2g} std" if kind != "normal" else ""
        text = f"normal, std {init.std:.3g}{cut}"
    name = _scheme(init, value, shape, module)
    return f"{text}: {name}" if name else text


def _scheme(init: InitFact, value: WeightFact, shape: tuple[int, ...], module: ModuleFact | None) -> str:
    """`kaiming (fan_in)`, `xavier`, ...: the scheme of torch.nn.init whose standard deviation fits."""
    if len(shape) < 2:
        return ""
    groups = module.config.get("groups", 1) if module is not None else 1
    into, out = torch_fans(shape)
    sizes = {"in": into, "out": out, "mean": (into + out) / 2, "out/groups": out / max(groups, 1)}
    spreads = [value.std, init.std] if init.distribution == "truncated_normal" else [value.std]
    tolerance = 0.012 + 3 / math.sqrt(2 * min(value.count, 8192))
    for gain, fan, name, words in _SCHEMES:
        wanted = gain / math.sqrt(sizes[fan])
        if any(abs(spread / wanted - 1) < tolerance for spread in spreads):
            return f"{name} ({words})" if words else name
    return ""


def gains(value: WeightFact, use: Use) -> tuple[float, float]:
    """sqrt(fan * mean square) for fan-in and fan-out: 1 keeps a linear net's variance, 1.41 that of ReLU."""
    square = value.mean_square
    return math.sqrt(use.fan_in * square), math.sqrt(use.fan_out * square)


def share(flags: Iterable[bool]) -> float:
    """The share that is true; 0 of nothing."""
    found = list(flags)
    return sum(found) / len(found) if found else 0.0
