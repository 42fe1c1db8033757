"""The kernels as operators of torch: with a shape for compilers, and a gradient.

A first derivative takes the kernels, a second one the formulas of `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normdoctor.layers import reference
from normdoctor.layers.kernels import launch, layout
from normdoctor.layers.secondorder import gradients


def _operator(name: str, schema: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    made: Any = torch.library.custom_op(f"normdoctor::{name}", function, mutates_args=(), schema=schema)
    made.register_fake(fake)
    return made


def _like(x: Tensor) -> Tensor:
    """An empty result of a kernel that goes through slabs: dense, with the channels where they were."""
    return torch.empty_like(layout.dense(x, layout.channels_lie_last(x)))


def _optional(asked: bool, x: Tensor) -> Tensor:
    return torch.empty_like(x) if asked else x.new_empty(0)


def _slab_fake(
    x: Tensor, weight: Any, bias: Any, residual: Any, groups: int, across: bool, eps: float, activation: str
) -> tuple[Tensor, Tensor]:
    return _like(x), x.new_empty(3, 1 if across else x.shape[0], groups, dtype=torch.float32)


def _slab_backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Any,
    bias: Any,
    residual: Any,
    statistics: Tensor | None,
    across: bool,
    activation: str,
    of_residual: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = _like(x)
    sums = x.new_empty(1 if across else x.shape[0], 2, x.shape[1], dtype=torch.float32)
    return dx, _optional(of_residual, dx), sums


def _row_fake(
    x: Tensor,
    weight: Any,
    bias: Any,
    residual: Any,
    width: int,
    centre: bool,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    rstd = x.new_empty(x.numel() // width, dtype=torch.float32)
    return torch.empty_like(x.contiguous()), torch.empty_like(rstd) if centre else rstd.new_empty(0), rstd


def _row_backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Any,
    bias: Any,
    residual: Any,
    mean: Tensor,
    rstd: Tensor,
    width: int,
    centre: bool,
    activation: str,
    of_residual: bool,
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x.contiguous())
    dweight, dbias = (rstd.new_empty(width if asked else 0) for asked in (of_weight, of_bias))
    return dx, _optional(of_residual, dx), dweight, dbias


_TENSORS = "Tensor x, Tensor? weight, Tensor? bias, Tensor? residual"

slab_norm = _operator(
    "slab_norm",
    f"({_TENSORS}, int groups, bool across, float eps, str activation) -> (Tensor, Tensor)",
    launch.slab_norm,
    _slab_fake,
)
channel_affine = _operator(
    "channel_affine",
    f"({_TENSORS}, str activation) -> Tensor",
    launch.channel_affine,
    lambda x, weight, bias, residual, activation: _like(x),
)
slab_backward = _operator(
    "slab_norm_backward",
    f"(Tensor grad, {_TENSORS}, Tensor? statistics, bool across, str activation, bool of_residual,"
    " bool of_weight) -> (Tensor, Tensor, Tensor)",
    launch.slab_backward,
    _slab_backward_fake,
)
row_norm = _operator(
    "row_norm",
    f"({_TENSORS}, int width, bool centre, float eps, str activation) -> (Tensor, Tensor, Tensor)",
    launch.row_norm,
    _row_fake,
)
row_backward = _operator(
    "row_norm_backward",
    f"(Tensor grad, {_TENSORS}, Tensor mean, Tensor rstd, int width, bool centre, str activation,"
    " bool of_residual, bool of_weight, bool of_bias) -> (Tensor, Tensor, Tensor, Tensor)",
    launch.row_backward,
    _row_backward_fake,
)


def _remember_slabs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, ctx.groups, ctx.across, ctx.eps, ctx.activation = inputs
    ctx.save_for_backward(x, weight, bias, residual, output[1])


def _slabs_back(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    x, weight, bias, residual, statistics = ctx.saved_tensors
    settings = (None,) * 4
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():

        def formula(*tensors: Tensor) -> Tensor:
            return _slab_formula(ctx, *tensors)

        return (*gradients(formula, (x, weight, bias, residual), grad), *settings)
    return (*_slab_gradients(ctx, grad, x, weight, bias, residual, statistics, ctx.across), *settings)


def _slab_formula(ctx: Any, x: Tensor, weight: Any, bias: Any, residual: Any) -> Tensor:
    kind = _name(ctx.activation)
    if ctx.across:
        return reference.batch_norm(x, weight, bias, ctx.eps, kind, residual)[0]
    return reference.group_norm(x, ctx.groups, weight, bias, ctx.eps, kind, residual)[0]


def _slab_gradients(
    ctx: Any,
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor | None,
    across: bool,
) -> tuple[Tensor | None, ...]:
    _, of_weight, of_bias, of_residual = ctx.needs_input_grad[:4]
    # Without an activation the residual's gradient is the one that came.
    through = of_residual and ctx.activation != "none"
    given = (grad, x, weight, bias, residual, statistics, across, ctx.activation)
    dx, dresidual, sums = slab_backward(*given, through, of_weight or of_bias)
    dbias, dweight = sums.sum(0).unbind(0)
    dresidual = dresidual if through else grad
    return (
        dx,
        _typed(dweight, weight, of_weight),
        _typed(dbias, bias, of_bias),
        _typed(dresidual, residual, of_residual),
    )


def _remember_affine(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, residual, ctx.activation = inputs
    ctx.save_for_backward(x, weight, bias, residual)


def _affine_back(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, bias, residual = ctx.saved_tensors
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        kind = _name(ctx.activation)

        def formula(x: Tensor, weight: Any, bias: Any, residual: Any) -> Tensor:
            return reference.channel_affine(x, weight, bias, kind, residual)

        return (*gradients(formula, (x, weight, bias, residual), grad), None)
    return (*_slab_gradients(ctx, grad, x, weight, bias, residual, None, True), None)


def _remember_rows(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, residual, ctx.width, ctx.centre, ctx.eps, ctx.activation = inputs
    ctx.save_for_backward(x, weight, bias, residual, *output[1:])


def _rows_back(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Any, ...]:
    x, weight, bias, residual, mean, rstd = ctx.saved_tensors
    settings = (None,) * 4
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():

        def formula(*tensors: Tensor) -> Tensor:
            return _row_formula(ctx, *tensors)

        return (*gradients(formula, (x, weight, bias, residual), grad), *settings)
    _, of_weight, of_bias, of_residual = ctx.needs_input_grad[:4]
    through = of_residual and ctx.activation != "none"
    tensors = (grad, x, weight, bias, residual, mean, rstd)
    dx, dresidual, dweight, dbias = row_backward(
        *tensors, ctx.width, ctx.centre, ctx.activation, through, of_weight, of_bias
    )
    dresidual = dresidual if through else grad
    return (
        dx,
        _typed(dweight, weight, of_weight),
        _typed(dbias, bias, of_bias),
        _typed(dresidual, residual, of_residual),
        *settings,
    )


def _row_formula(ctx: Any, x: Tensor, weight: Any, bias: Any, residual: Any) -> Tensor:
    rows = x.reshape(-1, ctx.width)
    scale, shift = (None if one is None else one.reshape(-1) for one in (weight, bias))
    beside = None if residual is None else residual.reshape(-1, ctx.width)
    kind = _name(ctx.activation)
    if ctx.centre:
        y = reference.layer_norm(rows, (ctx.width,), scale, shift, ctx.eps, kind, beside)[0]
    else:
        y = reference.rms_norm(rows, (ctx.width,), scale, ctx.eps, kind, beside)[0]
    return y.view(x.shape)


def _typed(grad: Tensor, parameter: Tensor | None, asked: bool) -> Tensor | None:
    """The gradient in the type and shape of what it is for."""
    return grad.to(parameter.dtype).reshape(parameter.shape) if asked and parameter is not None else None


def _name(activation: str) -> Any:
    return None if activation == "none" else activation


slab_norm.register_autograd(_slabs_back, setup_context=_remember_slabs)
channel_affine.register_autograd(_affine_back, setup_context=_remember_affine)
row_norm.register_autograd(_rows_back, setup_context=_remember_rows)
