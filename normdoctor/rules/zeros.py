"""How many factors of zero stand in front of each activation: one can learn, two cannot."""

from __future__ import annotations

import math

from normdoctor.facts import Node
from normdoctor.graph import PRESERVING, Graph
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, bias_of, scale_and_shift
from normdoctor.rules.moments import function
from normdoctor.rules.weights import is_direct, uses, values_of

_ZERO_AT_ZERO = frozenset("dropout pool reshape reduce".split())


def zero_factors(graph: Graph) -> list[int]:
    """For each node the order of the zero that it returns: the number of zero factors in each product.

    A value that is one zero parameter times something else is 0 and has a gradient; a product of two
    zero parameters has none, for neither of them. Sums take the least order of their terms.
    """
    orders: list[int] = []
    for node in graph.nodes:
        orders.append(_order(graph, node, [orders[index] for index in node.inputs]))
    return orders


def _order(graph: Graph, node: Node, inputs: list[int]) -> int:
    if not inputs:
        return 0
    norm = graph.norm_at(node)
    if norm is not None and norm.handwritten is None:
        return _of_norm(graph, node, inputs[0])
    if node.kind in CONVS | TRANSPOSED | DENSE or node.kind == "matmul":
        return _of_layer(graph, node, inputs)
    if node.kind == "mul":
        return sum(inputs) + sum(_is_zero(graph, node, name) for name in node.parameters)
    if node.role in ("add", "concat"):
        return 0 if node.parameters or _has_number(node) else min(inputs)
    if node.role == "activation":
        made = function(node.kind, node.config)
        return inputs[0] if made is not None and math.isclose(made(0.0), 0.0, abs_tol=1e-12) else 0
    if node.kind in PRESERVING or node.role in _ZERO_AT_ZERO or node.kind == "div":
        return inputs[0] if len(inputs) == 1 or node.kind == "div" else min(inputs)
    return 0


def _has_number(node: Node) -> bool:
    return bool(node.config.get("scalar"))


def _is_zero(graph: Graph, node: Node, name: str) -> bool:
    """Is it a trainable parameter of zeros, read as it is?"""
    parameter = graph.parameters.get(name)
    value = values_of(graph, name)
    if parameter is None or value is None or not parameter.trainable or parameter.kind != "parameter":
        return False
    if value.minimum != 0 or value.maximum != 0:
        return False
    # tanh(gate) of a zero gate is zero as well; a sigmoid of it is not.
    computed = [
        reader
        for reader in graph.functional_readers.get(name, ())
        if reader.role == "parameter" and reader.index < node.index
    ]
    kinds = {reader.kind for reader in computed if not graph.transparent(reader)}
    return kinds <= {"tanh", "getitem", "select_output"}


def _of_layer(graph: Graph, node: Node, inputs: list[int]) -> int:
    found = uses(graph, node)
    if len(found) != 1:
        return sum(inputs) if node.kind == "matmul" and not node.parameters else 0
    zero = _is_zero(graph, node, found[0].parameter.name)
    bias = bias_of(graph, node)
    if bias is not None:
        value = values_of(graph, bias.name)
        if value is None or value.minimum != 0 or value.maximum != 0:
            return 0
    return inputs[0] + zero


def _of_norm(graph: Graph, node: Node, before: int) -> int:
    zero = False
    _, shift = scale_and_shift(node)
    for name in node.parameters:
        parameter, value = graph.parameters.get(name), values_of(graph, name)
        if parameter is None or parameter.kind != "parameter":
            continue
        if value is None or not is_direct(graph, node, parameter):
            return 0
        if name == shift or parameter.attribute.endswith("bias"):
            if value.minimum != 0 or value.maximum != 0:
                return 0
        else:
            zero = _is_zero(graph, node, name)
    return before + zero
