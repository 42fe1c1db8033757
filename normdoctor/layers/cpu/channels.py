"""BatchNorm in training on a CPU, of inputs whose positions lie next to each other.

torch's kernel adds up the statistics of such an input one value at a time, which takes three times as long as
the rest. GroupNorm's kernel does it with vectors: with one channel a group it gives mean and variance of each
channel of each sample, which are merged by the formula of Chan, Golub and LeVeque.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normdoctor.layers import native, reference
from normdoctor.layers.activations import Activation
from normdoctor.layers.cpu.common import channels_last, far, like, piece, split, wide
from normdoctor.layers.secondorder import gradients

#: Fewer positions than these a channel, or values in all, and torch's own kernel is as fast (measured).
POSITIONS = 128
VALUES = 1 << 17

#: Rows of a channels_last input from which its sums are taken in parts. torch's kernel adds up a channel
#: value by value in float32: the variance is off by 5e-5 for 2**17 rows, by 4e-3 for 2**22 (measured).
LONG = 1 << 18
PART = 1 << 16

_aten: Any = torch.ops.aten


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.batch_norm`."""
    if usable(x):
        long = in_rows(x)
        mean, variance, bad = statistics(x.detach())
        if not bad or long:
            scale, shift = wide(weight, x), wide(bias, x)
            if bad:
                shifted = x - reference.along_channels(mean, x)
                rest, variance, _ = statistics(shifted.detach())
                y = normalized(shifted, scale, shift, rest, variance, eps)
                mean = mean + rest
            else:
                y = normalized(x, scale, shift, mean, variance, eps)
            return native.finish(y, activation, residual), mean, variance
    return native.batch_norm(x, weight, bias, eps, activation, residual)


def usable(x: Tensor) -> bool:
    """Is there something to win? Half types are added up with vectors by torch's kernel, too.

    Of many rows in channels_last it is not time that is won, but digits: see `LONG`.
    """
    if x.dtype == torch.float32 and in_rows(x):
        return x.numel() // x.shape[1] >= LONG
    return (
        x.dtype in (torch.float32, torch.float64)
        and x.dim() > 2
        and x.is_contiguous()
        and x.shape[2:].numel() >= POSITIONS
        and x.numel() >= VALUES
    )


def in_rows(x: Tensor) -> bool:
    """Does the input lie in memory as rows of channels?"""
    return x.is_contiguous() if x.dim() == 2 else channels_last(x) is not None


def tracked(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`y`, mean and `1 / sqrt(variance + eps)`, with the running statistics moved by the same call of torch.

    For small inputs the calls around the kernel cost as much as the kernel. None where another way is faster,
    or where the running statistics are not of the type in which `x` is normalized.
    """
    dtype = reference.computing_type(x.dtype)
    same = all(one is None or one.dtype == dtype for one in (running_mean, running_var, weight, bias))
    if x.device.type != "cpu" or not same or usable(x):
        return None
    x = native.dense(x) if x.dtype in reference.HALF else x
    given = (x, weight, bias, running_mean, running_var, True, momentum, eps)
    y, mean, rstd = torch.native_batch_norm(*given)
    # Where positions lie next to each other, torch adds up in float64.
    if dtype == x.dtype == torch.float32 and not (x.dim() > 2 and x.is_contiguous()):
        if not far(mean, rstd, native.LARGE_MEAN):
            return y, mean, rstd
        y, right, variance = native.batch_norm(x, weight, bias, eps)
        count = x.numel() // x.shape[1]
        correction = variance - rstd.pow(-2) + eps
        running_mean.add_(right - mean, alpha=momentum)
        running_var.add_(correction, alpha=momentum * count / (count - 1))
        return y, right, torch.rsqrt(variance + eps)
    return native.half_dense(y, x), mean, rstd


def normalized(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """BatchNorm of an `x` whose own mean and biased variance are known; all but `x` in the computing type."""
    y: Tensor = _BatchNorm.apply(x, weight, bias, mean, variance, eps)  # type: ignore[no-untyped-call]
    return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        y: Tensor = torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, bias, mean, torch.rsqrt(variance + eps))
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():

            def formula(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
                return reference.batch_norm(x, weight, bias, ctx.eps)[0]

            return (*gradients(formula, (x, weight, bias), grad), None, None, None)
        mask = list(ctx.needs_input_grad[:3])
        grad = grad.contiguous() if channels_last(x) is None else like(grad, x)
        found = _aten.native_batch_norm_backward(grad, x, weight, None, None, mean, rstd, True, ctx.eps, mask)
        return (*found, None, None, None)


def statistics(x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Mean and biased variance of each channel, and whether a mean is so large that digits were lost."""
    if in_rows(x):
        centre, variance = statistics_of_rows(x)
        return centre, variance, far(centre, torch.rsqrt(variance), native.LARGE_MEAN)
    means, variances = of_samples(x)
    between, centre = torch.var_mean(means, 0, correction=0)
    variance = variances.mean(0).add_(between)
    return centre, variance, far(centre, torch.rsqrt(variance), native.LARGE_MEAN)


def of_samples(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of each sample, (N, C), of an input in the usual layout.

    What the kernel normalizes goes to a buffer of one piece, which stays in the cache, and is dropped.
    """
    samples, channels = x.shape[:2]
    positions = x.shape[2:].numel()
    height = piece(channels * positions)
    means, rstds = [], []
    for part in split(x.reshape(samples, channels, positions), height):
        one = torch.native_group_norm(part, None, None, len(part), channels, positions, channels, 0.0)
        means.append(one[1])
        rstds.append(one[2])
    # Of a channel without any variance the kernel gives an infinite `rstd`: its power is the right zero.
    return torch.cat(means), torch.cat(rstds).pow(-2)


def statistics_of_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of an input that lies in memory as rows of channels.

    They are taken of parts, which are merged by the formula of Chan, Golub and LeVeque.
    """
    rows = x.movedim(1, -1).reshape(-1, x.shape[1])
    nought = rows.new_zeros(rows.shape[1], dtype=reference.computing_type(x.dtype))
    parts = split(rows, PART)
    # As images of one column: the kernel for those has vectors.
    images = [one.view(1, len(one), 1, -1).permute(0, 3, 1, 2) for one in parts]
    found = [torch.batch_norm_update_stats(one, nought.clone(), nought.clone(), 0.0) for one in images]
    counts = nought.new_tensor([len(one) for one in parts]).unsqueeze(1)
    means, variances = (torch.stack([one[place] for one in found]) for place in (0, 1))
    centre = means[0] + (counts * (means - means[0])).sum(0) / len(rows)
    variance = (counts * (variances + (means - centre).square())).sum(0) / len(rows)
    return centre, variance
