"""What one activation leaves for another to do: ranges and idempotence."""

from __future__ import annotations

from normdoctor.facts import Node

#: Outputs in [0, 1].
UNIT = frozenset({"sigmoid", "hardsigmoid", "softmax"})
#: Outputs that are never negative.
NONNEGATIVE = UNIT | {"relu", "relu6", "softplus"}
#: The identity on non-negative numbers.
IDENTITY_ABOVE_0 = frozenset({"relu", "leaky_relu", "prelu", "rrelu", "elu", "celu"})


def keeps(outer: Node, inner: Node) -> bool:
    """Is outer(inner(x)) = inner(x): has the outer one nothing left to do?"""
    if inner.kind in NONNEGATIVE and outer.kind in IDENTITY_ABOVE_0:
        return True
    if outer.kind == "relu6":
        return inner.kind in UNIT | {"relu6"}
    if outer.kind == "hardtanh" and outer.config.get("min_val", -1.0) == -1.0:
        return inner.kind in UNIT | {"tanh", "hardtanh"} and outer.config.get("max_val", 1.0) == 1.0
    return False


def absorbs(outer: Node, inner: Node) -> bool:
    """Is outer(inner(x)) = outer(x): does it not matter whether the inner one ran before?"""
    if outer.kind in ("relu", "relu6") and inner.kind in IDENTITY_ABOVE_0:
        # A negative slope of leaky_relu, which would turn signs, is ND316's concern.
        return True
    return outer.kind == inner.kind and outer.kind in ("relu6", "hardtanh") and outer.config == inner.config
