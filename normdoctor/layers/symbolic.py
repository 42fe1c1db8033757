"""Symbolic traces by torch.fx: torch's layers are one node there because of their module's name, ours so."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.fx import Proxy
from torch.fx.proxy import TraceError


def traced(value: object) -> bool:
    """Does the value stand for one in a symbolic trace?"""
    return isinstance(value, Proxy)


def leaf(layer: nn.Module, input: Any, *rest: Any) -> Tensor:
    """The node that calls `layer`, in the trace that `input` belongs to.

    Raises:
        TraceError: If nothing but the layer is traced.
    """
    path = input.tracer.path_of_module(layer)
    if not path:
        raise TraceError("a layer is one node of a trace: trace a module that holds it")
    while rest and rest[-1] is None:
        rest = rest[:-1]
    return cast(Tensor, input.tracer.create_proxy("call_module", path, (input, *rest), {}))
