"""RMSNorm on a CPU, in pieces of rows that stay in the cache.

torch has no kernel for it there and computes the formula call by call, each over the whole tensor: forward
and backward then cost three and five times what LayerNorm's fused kernels do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normdoctor.layers import native, reference
from normdoctor.layers.activations import Activation
from normdoctor.layers.cpu.common import needs_graph, piece, pieces, wide
from normdoctor.layers.secondorder import gradients

#: Below as many values torch's calls, one by one, are as fast (measured).
SMALL = 1 << 17

_aten: Any = torch.ops.aten


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.rms_norm`."""
    eps = torch.finfo(reference.computing_type(x.dtype)).eps if eps is None else eps
    leading = x.shape[: x.dim() - len(normalized_shape)]
    if x.numel() < SMALL:
        y, rstd = _call_by_call(x, list(normalized_shape), weight, eps)
    elif needs_graph(x, weight):
        y, rstd = _RMSNorm.apply(x, wide(weight, x), tuple(normalized_shape), eps)  # type: ignore[no-untyped-call]
    else:
        y, rstd = _forward(x, wide(weight, x), normalized_shape, eps)
    return native.finish(y, activation, residual), rstd.view(leading)


def _call_by_call(x: Tensor, shape: list[int], weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """By torch's own composition, which also gives `rstd` since torch 2.9."""
    fused = getattr(torch, "_fused_rms_norm", None)
    if fused is None or (weight is not None and weight.dtype != x.dtype):
        return reference.rms_norm(x, shape, weight, eps)
    y, rstd = fused(x, shape, weight, eps)
    return y, rstd.detach()


class _RMSNorm(torch.autograd.Function):
    """Of `x` and a weight in the computing type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, shape: tuple[int, ...], eps: float
    ) -> tuple[Tensor, Tensor]:
        y, rstd = _forward(x, weight, shape, eps)
        ctx.save_for_backward(x, weight, rstd)
        ctx.mark_non_differentiable(rstd)
        ctx.shape, ctx.eps = shape, eps
        return y, rstd

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        x, weight, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():

            def formula(x: Tensor, weight: Tensor | None) -> Tensor:
                return reference.rms_norm(x, ctx.shape, weight, ctx.eps)[0]

            return (*gradients(formula, (x, weight), grad), None, None)
        width = math.prod(ctx.shape)
        flat = None if weight is None else weight.reshape(-1)
        dx, dweight = _backward(
            grad.reshape(-1, width), x.reshape(-1, width), flat, rstd, ctx.needs_input_grad[1]
        )
        return dx.view(x.shape), None if dweight is None else dweight.view(ctx.shape), None, None


def _forward(x: Tensor, weight: Tensor | None, shape: Sequence[int], eps: float) -> tuple[Tensor, Tensor]:
    width = math.prod(shape)
    rows = x.reshape(-1, width)
    dtype = reference.computing_type(x.dtype)
    root = math.sqrt(width)
    factors = rows.new_tensor(root, dtype=dtype) if weight is None else weight.reshape(-1) * root
    # `sqrt(sum(x**2) + width * eps)` in one call.
    floor = rows.new_tensor(math.sqrt(width * eps), dtype=dtype)
    y = torch.empty_like(rows, memory_format=torch.contiguous_format)
    norms = rows.new_empty(len(rows), 1, dtype=dtype)
    height = min(piece(width), len(rows))
    scratch = None if dtype == x.dtype else rows.new_empty(height, width, dtype=dtype)
    for part, out, norm in pieces(height, rows, y, norms):
        source = part if scratch is None else scratch[: len(part)].copy_(part)
        target = out if scratch is None else source
        torch.linalg.vector_norm(source, dim=1, keepdim=True, out=norm)
        # The reciprocal, since a division a value takes longer than the memory does.
        norm.hypot_(floor).reciprocal_()
        torch.mul(source, norm, out=target).mul_(factors)
        if scratch is not None:
            out.copy_(target)
    return y.view(x.shape), norms.mul_(root)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, rstd: Tensor, weigh: bool
) -> tuple[Tensor, Tensor | None]:
    """With `v` a row, `g` its gradient times the weight: `rstd * (g - v * rstd**2 * mean(g * v))`.

    That is the gradient of `v / norm(v)`, with `eps` inside the norm, by the formula of weight normalization,
    whose fused kernel computes it.
    """
    rows, width = x.shape
    dtype = rstd.dtype
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dweight: Tensor | None = None
    root = math.sqrt(width)
    norm, length, zero = root / rstd, torch.full_like(rstd, root), torch.zeros_like(rstd)
    height = min(piece(width), rows)
    scratch = x.new_empty(3, height, width, dtype=dtype)
    for part in pieces(height, grad, x, dx, rstd, norm, length, zero):
        g, v, out, scale, n, one, nought = part
        product = scratch[0, : len(g)]
        if dtype != x.dtype:
            g, v = scratch[1, : len(g)].copy_(g), scratch[2, : len(v)].copy_(v)
        if weigh:
            mask = [False, True, False]
            found = _aten.native_layer_norm_backward(g, v, [width], nought, scale, weight, None, mask)[1]
            dweight = found if dweight is None else dweight.add_(found)
        g = g.contiguous() if weight is None else torch.mul(g, weight, out=product)
        out.copy_(_aten._weight_norm_interface_backward(g, v.contiguous(), one, n, 0)[0])
    return dx, dweight
