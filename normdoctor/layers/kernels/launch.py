"""Calls of the kernels: tensors in, tensors out, on one device, without a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normdoctor.layers.kernels import layout
from normdoctor.layers.kernels import rows as row_kernels
from normdoctor.layers.kernels import slabs as slab_kernels

_WARPS = 8


def slab_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    groups: int,
    across: bool,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """`y`, and mean, biased variance and `rstd` of each slab, of shape (3, samples, groups) in float32."""
    last = layout.channels_lie_last(x)
    x = layout.dense(x, last)
    how = layout.slabs(x, last, across)
    width = how.channels // groups
    shares = x.new_empty(how.samples * how.parts, 3, how.channels, dtype=torch.float32)
    statistics = x.new_empty(3, how.samples, groups, dtype=torch.float32)
    tiled = {"tall": how.tall, "broad": how.broad, "num_warps": _WARPS}
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        sizes = (how.channels, how.length, how.batches, how.tiles, *how.strides)
        slab_kernels.moments[how.grid](x, shares, *sizes, **tiled)
        block = min(1024, layout.power(how.parts * width))
        given = (shares, statistics, how.channels, width, how.parts, eps)
        slab_kernels.merge[(groups, how.samples)](*given, block=block)
        y = _applied(x, weight, bias, residual, statistics, how, last, activation)
    return y, statistics


def channel_affine(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    """`activation(x * scale + shift + residual)`."""
    last = layout.channels_lie_last(x)
    x = layout.dense(x, last)
    how = layout.slabs(x, last, across=True)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        return _applied(x, scale, shift, residual, None, how, last, activation)


def _applied(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor | None,
    how: layout.Slabs,
    last: bool,
    activation: str,
) -> Tensor:
    y = torch.empty_like(x)
    residual = None if residual is None else layout.dense(residual, last)
    width = how.channels if statistics is None else how.channels // statistics.shape[2]
    given = (x, y, residual, statistics, weight, bias, *_sizes(how, width))
    slab_kernels.apply[how.grid](*given, kind=activation, tall=how.tall, broad=how.broad, num_warps=_WARPS)
    return y


def _sizes(how: layout.Slabs, width: int) -> tuple[int, ...]:
    return how.channels, how.length, how.batches, how.tiles, width, *how.strides


def slab_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor | None,
    across: bool,
    activation: str,
    of_residual: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `x` and the residual, and for each sample those of bias and weight: (samples, 2, C).

    Without statistics it is the gradient of `channel_affine`, whose sums are left out unless `of_weight`.
    """
    last = layout.channels_lie_last(x)
    grad, x = layout.dense(grad, last), layout.dense(x, last)
    residual = None if residual is None else layout.dense(residual, last)
    how = layout.slabs(x, last, across)
    groups = 1 if statistics is None else statistics.shape[2]
    width = how.channels // groups
    sums = x.new_empty(how.samples, 2, how.channels, dtype=torch.float32)
    levels = None if statistics is None else torch.empty_like(statistics[:2])
    dx = torch.empty_like(x)
    dresidual = torch.empty_like(x) if of_residual else None
    sizes = _sizes(how, width)
    tiled: dict[str, Any] = {"tall": how.tall, "broad": how.broad, "num_warps": _WARPS}
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        if of_weight or statistics is not None:
            shares = x.new_empty(how.samples * how.parts, 2, how.channels, dtype=torch.float32)
            given = (grad, x, residual, shares, statistics, weight, bias, *sizes)
            slab_kernels.sums[how.grid](*given, kind=activation, **tiled)
            _total(shares, weight, sums, levels, how, groups)
        given = (grad, x, residual, dx, dresidual, statistics, levels, weight, bias, *sizes)
        slab_kernels.back[how.grid](*given, kind=activation, **tiled)
    return dx, _or_empty(dresidual, x), sums


def _total(
    shares: Tensor,
    weight: Tensor | None,
    sums: Tensor,
    levels: Tensor | None,
    how: layout.Slabs,
    groups: int,
) -> None:
    width = how.channels // groups
    count = how.batches * how.length * width
    broad = min(128, layout.power(width))
    many = min(layout.power(how.parts), layout.TILE // broad)
    unused = sums.new_empty(2, how.samples, groups) if levels is None else levels
    given = (shares, weight, sums, unused, how.channels, width, how.parts, float(count))
    slab_kernels.total[(groups, how.samples)](*given, many=many, broad=broad)


def row_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    width: int,
    centre: bool,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`y`, and mean (of none without `centre`) and `rstd` of each row in float32."""
    x = x.contiguous()
    residual = None if residual is None else residual.contiguous()
    how = layout.rows(x, width)
    y = torch.empty_like(x)
    rstd = x.new_empty(how.number, dtype=torch.float32)
    mean = torch.empty_like(rstd) if centre else rstd.new_empty(0)
    given = (x, y, residual, weight, bias, mean, rstd, how.number, width, eps, centre, activation)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        grid = (-(-how.number // how.tall),)
        row_kernels.forward[grid](*given, tall=how.tall, broad=how.broad, num_warps=how.warps)
    return y, mean, rstd


def row_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    width: int,
    centre: bool,
    activation: str,
    of_residual: bool,
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `x`, residual, weight and bias, the last two in float32; empty where not asked for."""
    grad, x = grad.contiguous(), x.contiguous()
    residual = None if residual is None else residual.contiguous()
    how = layout.rows(x, width)
    dx = torch.empty_like(x)
    dresidual = torch.empty_like(x) if of_residual else None
    dweight, dbias = (
        rstd.new_empty(how.programs, width) if asked else None for asked in (of_weight, of_bias)
    )
    given = (grad, x, residual, weight, bias, mean, rstd, dx, dresidual, dweight, dbias)
    sizes = (how.number, width, how.tiles, centre, activation)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        row_kernels.backward[(how.programs,)](
            *given, *sizes, tall=how.tall, broad=how.broad, num_warps=how.warps
        )
    summed = (_or_empty(None if one is None else one.sum(0), rstd) for one in (dweight, dbias))
    return dx, _or_empty(dresidual, x), *summed  # type: ignore[return-value]


def _or_empty(values: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if values is None else values
