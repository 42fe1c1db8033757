"""GroupNorm and InstanceNorm on a CPU, of inputs whose channels lie next to each other (channels_last).

torch's InstanceNorm copies such an input into the other layout. Its GroupNorm takes `E[x**2] - E[x]**2`, and
both directions go through a group's channels one by one where they do not fill a vector register. BatchNorm's
kernels are at home in this layout, so here they are called once a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from normdoctor.layers import native, reference
from normdoctor.layers.activations import Activation
from normdoctor.layers.cpu.channels import statistics_of_rows
from normdoctor.layers.cpu.common import channels_last, far, like, pieces, split
from normdoctor.layers.cpu.common import piece as rows_of_a_piece
from normdoctor.layers.secondorder import gradients

#: Channels a group from which on torch's backward is as fast, in all and half types (measured).
NARROW = 8
NARROW_HALF = 16
#: Values of an input below which it is, and positions from which on torch's forward is (measured).
VALUES = 1 << 17
POSITIONS = 1024
#: Values a group from which its sums are always taken in parts. torch's kernel is off by 6e-5 of the variance
#: for 2**20 values, by 4e-4 for 2**21, also where the mean is zero, but faster (measured).
VERY_LONG = 1 << 22

_aten: Any = torch.ops.aten


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm`."""
    if not usable(x, num_groups):
        return native.group_norm(x, num_groups, weight, bias, eps, activation, residual)
    scale, shift = (_filled(one, x, value) for one, value in ((weight, 1.0), (bias, 0.0)))
    long = _long(x, num_groups)
    norm = _InstanceNorm if num_groups == x.shape[1] else _GroupNorm
    ways = (True,) if x.is_contiguous() or long else (True, False)
    for shortcut in ways if _shortcut(x, num_groups) else () if long else (False,):
        y, mean, rstd = norm.apply(x, scale, shift, num_groups, eps, shortcut)  # type: ignore[no-untyped-call]
        limit = native.LARGE_MEAN_SHORTCUT if shortcut and not x.is_contiguous() else native.LARGE_MEAN
        if not far(mean, rstd, limit):
            return native.finish(y, activation, residual), mean, rstd
    if long:
        y, mean, rstd = _in_parts(x, num_groups, scale, shift, eps)
        return native.finish(y, activation, residual), mean, rstd
    return native.group_norm(x, num_groups, weight, bias, eps, activation, residual)


def _long(x: Tensor, num_groups: int) -> bool:
    """Do torch's kernels add up so many values that even their mean is wrong where it is large?"""
    if x.dtype != torch.float32 or channels_last(x) is None:
        return False
    return x.numel() // (len(x) * num_groups) >= native.LONG


def _in_parts(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """GroupNorm with sums that are taken in parts, which keeps their digits."""
    y, mean, rstd = _GroupNorm.apply(x, weight, bias, num_groups, eps, False)  # type: ignore[no-untyped-call]
    if far(mean, rstd, native.LARGE_MEAN):
        shifted = x - _per_channel(mean, x.shape[1]).view(*x.shape[:2], *(1,) * (x.dim() - 2))
        y, rest, rstd = _GroupNorm.apply(shifted, weight, bias, num_groups, eps, False)  # type: ignore[no-untyped-call]
        mean = mean + rest
    return y, mean, rstd


def usable(x: Tensor, num_groups: int) -> bool:
    """Is there something to win? torch's kernel is good at groups that fill the registers."""
    if channels_last(x) is None:
        return _plain(x, num_groups)
    if x.shape[2:].numel() == 1:
        return False
    narrow = NARROW_HALF if x.dtype in reference.HALF else NARROW
    if num_groups == x.shape[1] or _very_long(x, num_groups):
        return True
    return x.shape[1] < num_groups * narrow and x.numel() >= VALUES


def _plain(x: Tensor, groups: int) -> bool:
    """Is it an InstanceNorm of channels that BatchNorm's backward takes best, in the usual layout?"""
    if groups < x.shape[1] or x.dtype in reference.HALF or not x.is_contiguous():
        return False
    return x.shape[2:].numel() >= 16 * POSITIONS


def _shortcut(x: Tensor, groups: int) -> bool:
    """Is torch's own kernel the faster one forward, if `E[x**2] - E[x]**2` is good enough?"""
    if x.is_contiguous():
        return True
    half, few = x.dtype in reference.HALF, x.shape[2:].numel() < POSITIONS
    return not few if half else groups < x.shape[1] and not _very_long(x, groups)


def _very_long(x: Tensor, groups: int) -> bool:
    return x.numel() // (len(x) * groups) >= VERY_LONG and _long(x, groups)


def _filled(values: Tensor | None, x: Tensor, value: float) -> Tensor:
    """A parameter in the computing type: without one, torch gives half statistics of half inputs."""
    dtype = reference.computing_type(x.dtype)
    return values.to(dtype) if values is not None else x.new_full((x.shape[1],), value, dtype=dtype)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, shortcut: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        if shortcut:
            return _by_group_norm(ctx, x, weight, bias, groups, eps)
        y = torch.empty_like(x)
        mean = weight.new_empty(x.shape[:2])
        rstd = torch.empty_like(mean)
        for one, out, centre, scale in zip(split(x, 1), split(y, 1), mean, rstd, strict=True):
            result = {"out": out, "save_mean": centre, "save_invstd": scale}
            _aten.native_batch_norm.out(one, weight, bias, None, None, True, 0.0, eps, **result)
        return _remember(ctx, x, weight, bias, y, mean, rstd, groups, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, _, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad)
        mask = list(ctx.needs_input_grad[:3])
        if x.is_contiguous():
            return *_as_batch_norm(grad, x, weight, mean, rstd, ctx.eps, mask), None, None, None
        dx = torch.empty_like(x) if mask[0] and len(x) > 1 else None
        sums: list[Tensor | None] = [None, None]
        grad = like(grad, x)
        for index, (g, one) in enumerate(zip(split(grad, 1), split(x, 1), strict=True)):
            given = (g, one, weight, None, None, mean[index], rstd[index], True, ctx.eps, mask)
            found, *others = _aten.native_batch_norm_backward(*given)
            if len(x) == 1:
                dx = found
            elif dx is not None:
                dx[index : index + 1].copy_(found)
            for place, value in enumerate(others):
                so_far = sums[place]
                if mask[1 + place]:
                    sums[place] = value if so_far is None else so_far.add_(value)
        return dx, *sums, None, None, None


def _as_batch_norm(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, eps: float, mask: list[bool]
) -> list[Tensor | None]:
    """The gradients of an InstanceNorm as the BatchNorm of one sample with the channels of all."""
    samples, channels = x.shape[:2]
    g, v = (values.reshape(1, samples * channels, -1) for values in (grad, x))
    given = (g, v, weight.repeat(samples), None, None, mean.flatten(), rstd.flatten(), True, eps, mask)
    dx, *sums = _aten.native_batch_norm_backward(*given)
    pairs = zip(sums, mask[1:], strict=True)
    summed = [values.view(samples, channels).sum(0) if asked else None for values, asked in pairs]
    return [dx.view(x.shape) if mask[0] else None, *summed]


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, shortcut: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        if shortcut:
            return _by_group_norm(ctx, x, weight, bias, groups, eps)
        samples, channels = x.shape[:2]
        y = torch.empty_like(x)
        means, variances = weight.new_zeros(2, samples, channels).unbind(0)
        for one, mean, variance in zip(split(x, 1), means, variances, strict=True):
            found = statistics_of_rows(one)
            mean.copy_(found[0])
            variance.copy_(found[1])
        of_group = (samples, groups, channels // groups)
        between, mean = torch.var_mean(means.view(of_group), 2, correction=0)
        variance = variances.view(of_group).mean(2).add_(between)
        every_mean, every_variance = (_per_channel(one, channels) for one in (mean, variance))
        for index, (one, out) in enumerate(zip(split(x, 1), split(y, 1), strict=True)):
            result = {"out": out, "save_mean": weight.new_empty(0), "save_invstd": weight.new_empty(0)}
            fixed = (every_mean[index], every_variance[index], False, 0.0, eps)
            _aten.native_batch_norm.out(one, weight, bias, *fixed, **result)
        return _remember(ctx, x, weight, bias, y, mean, torch.rsqrt(variance + eps), groups, eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
        x, weight, _, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, grad)
        grad = like(grad, x)
        count = x.numel() // rstd.numel()
        channels = x.shape[1]
        mean, scale = _per_channel(mean, channels), _per_channel(rstd, channels)
        with_x, alone = _sums(grad, x, mean, scale.pow(-2))
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[1]:
            found[1] = with_x.sum(0)
        if ctx.needs_input_grad[2]:
            found[2] = alone.sum(0)
        if ctx.needs_input_grad[0]:
            shape = (*rstd.shape, -1)
            both = (_per_channel((one * weight).view(shape).sum(2), channels) for one in (with_x, alone))
            slope, level = (one * scale / count for one in both)
            # scale * (weight * g - level - slope * (x - mean) * scale), in one product and one sum a value
            slope = slope * scale
            found[0] = _combined(grad, scale * weight, x, -slope, slope * mean - level)
        return *found, None, None, None


def _sums(grad: Tensor, x: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Of each sample and channel the sums of `grad * (x - mean) / sqrt(variance)` and of `grad`."""
    with_x, alone = torch.empty_like(mean), torch.empty_like(mean)
    one = torch.ones_like(mean[0])
    mask = [False, True, True]
    for index, (g, v) in enumerate(zip(split(grad, 1), split(x, 1), strict=True)):
        given = (g, v, one, mean[index], variance[index], None, None, False, 0.0, mask)
        _, first, second = _aten.native_batch_norm_backward(*given)
        with_x[index].copy_(first)
        alone[index].copy_(second)
    return with_x, alone


def _combined(grad: Tensor, first: Tensor, x: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """`grad * first + x * second + third`, with one factor a sample and channel, rounded once."""
    result = torch.empty_like(x)
    views = [one.movedim(1, -1).reshape(x.shape[0], -1, x.shape[1]) for one in (grad, x, result)]
    factors = [one.unsqueeze(1) for one in (first, second, third)]
    scratch: Tensor | None = None
    for g, v, out, a, b, c in _parts(views, factors):
        if first.dtype == x.dtype:
            torch.addcmul(c, v, b, out=out).addcmul_(g, a)
            continue
        scratch = first.new_empty(2, g.numel()) if scratch is None else scratch
        left, right = (one[: g.numel()].view(g.shape) for one in scratch)
        torch.addcmul(c, right.copy_(v), b, out=left)
        out.copy_(left.addcmul_(right.copy_(g), a))
    return result


def _parts(views: list[Tensor], factors: list[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Views of (N, L, C) and factors of (N, 1, C) in parts of the size of a piece."""
    _, rows, channels = views[0].shape
    if rows <= (height := rows_of_a_piece(channels)):
        yield from pieces(height // rows, *views, *factors)
        return
    for sample, factor in zip(zip(*views, strict=True), zip(*factors, strict=True), strict=True):
        for part in pieces(height, *sample):
            yield *part, *factor


def _per_channel(statistic: Tensor, channels: int) -> Tensor:
    """(N, G) to (N, C)."""
    return statistic.repeat_interleave(channels // statistic.shape[1], dim=1)


def _by_group_norm(
    ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = (*x.shape[:2], x.shape[2:].numel(), groups, eps)
    y, mean, rstd = torch.native_group_norm(x, weight, bias, *sizes)
    return _remember(ctx, x, weight, bias, y, mean, rstd, groups, eps)


def _remember(
    ctx: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.groups, ctx.eps = groups, eps
    return y, mean, rstd


def _differentiable(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, bias = ctx.saved_tensors[:3]

    def formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return reference.group_norm(x, ctx.groups, weight, bias, ctx.eps)[0]

    return (*gradients(formula, (x, weight, bias), grad), None, None, None)
