"""The activations and their derivatives, inside a kernel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")


# Functions of Triton are not annotated: its compiler looks up the names in annotations.
def _activate(z, kind: tl.constexpr):  # type: ignore[no-untyped-def]
    """`activation(z)`; "none" gives `z` itself. A NaN stays one."""
    y = z
    if kind == "relu":
        y = tl.where(z < 0, 0.0, z)
    if kind == "leaky_relu":
        y = tl.where(z < 0, 0.01 * z, z)
    if kind == "silu":
        y = z * tl.sigmoid(z)
    if kind == "gelu":
        y = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    if kind == "gelu_tanh":
        y = z * tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))
    return y


def _slope(z, kind: tl.constexpr):  # type: ignore[no-untyped-def]
    """The derivative of `activation` at `z`."""
    slope = z * 0.0 + 1.0
    if kind == "relu":
        slope = tl.where(z > 0, 1.0, 0.0)
    if kind == "leaky_relu":
        slope = tl.where(z > 0, 1.0, 0.01)
    if kind == "silu":
        s = tl.sigmoid(z)
        slope = s * (1.0 + z * (1.0 - s))
    if kind == "gelu":
        normal = 0.3989422804014327 * tl.exp(-0.5 * z * z)
        slope = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * normal
    if kind == "gelu_tanh":
        s = tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))
        slope = s + z * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * z * z)
    return slope


activate: Any = triton.jit(_activate)
slope: Any = triton.jit(_slope)
