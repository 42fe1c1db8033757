"""The same functions as in `reference`, on torch's kernels.

Statistics come from the kernels themselves. Where residual or activation follow, they are torch's own calls.

Some of torch's CPU kernels lose digits when the mean is large against the standard deviation. Relative error
of the variance in float32 at mean/std = 1e4: LayerNorm and GroupNorm 3e-4 (64 values a row); GroupNorm of
channels_last, which computes `E[x**2] - E[x]**2`, 36 and more, and 1e-3 already at mean/std = 10; BatchNorm
of channels_last up to 90 (65536 rows). There the mean that was found is taken off the input, which changes
nothing but the rounding, and the kernel runs again. Where so many values stand behind each other that the
mean has lost its digits too, the input is copied into the other layout, whose kernels add up with more. CUDA
kernels use Welford's update and need none of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from normdoctor.layers import reference
from normdoctor.layers.activations import Activation, activate
from normdoctor.layers.reference import HALF, along_channels, computing_type

__all__ = ["batch_norm", "channel_affine", "group_norm", "layer_norm", "rms_norm"]

#: mean/std above which the kernels of the CPU are run again on the input less its mean (see above).
LARGE_MEAN = 100.0
LARGE_MEAN_SHORTCUT = 3.0
#: Values of a channel or group in channels_last from which on its mean has lost digits, too: of 2**20 values
#: it is off by 3e-3 of itself, and at mean/std = 1e4 thirty standard deviations away (measured).
LONG = 1 << 17


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.batch_norm`."""
    y, mean, variance = batch_norm_once(x, weight, bias, eps)
    # Where positions lie next to each other, the kernel adds up in float64.
    added_up = x.dim() > 2 and x.is_contiguous()
    long = x.numel() // x.shape[1] >= LONG
    if not added_up and suffers(x, mean, torch.rsqrt(variance + eps), 1.0 if long else LARGE_MEAN):
        if long:
            # As one sample with all positions, whose gradient comes back in the layout of the input.
            columns = x.movedim(1, 0).reshape(1, x.shape[1], -1)
            y, mean, variance = batch_norm_once(columns.contiguous(), weight, bias, eps)
            y = y.view(x.movedim(1, 0).shape).movedim(0, 1).contiguous(memory_format=_memory_format(x))
        else:
            y, rest, variance = batch_norm_once(x - along_channels(mean, x), weight, bias, eps)
            mean = mean + rest
    return finish(half_dense(y, x), activation, residual), mean, variance


def half_dense(y: Tensor, x: Tensor) -> Tensor:
    """The BatchNorm `y` of `x`, whose gradient will be dense where `x` is of a half type."""
    if x.dtype in HALF and y.requires_grad:
        # There is no gradient of what a second derivative does not come through.
        y.register_hook(lambda grad: None if grad is None else dense(grad))  # type: ignore[no-untyped-call]
    return y


def batch_norm_once(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`y`, mean and biased variance by one call of torch, which does not look at any value."""
    wide = computing_type(x.dtype)
    if x.dtype in HALF:
        x = dense(x)
    # Running statistics with a momentum of 1 are those of the batch, whichever kernel torch takes.
    mean, variance = torch.zeros(2, x.shape[1], dtype=wide, device=x.device).unbind(0)
    scale, shift = (None if v is None else v.to(wide) for v in (weight, bias))
    y = F.batch_norm(x, mean, variance, scale, shift, True, 1.0, eps)
    count = x.numel() // x.shape[1]
    return y, mean, variance * ((count - 1) / count)


def channel_affine(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As `reference.channel_affine`: torch has no kernel for it. For BatchNorm in eval mode it has one."""
    return reference.channel_affine(x, scale, shift, activation, residual)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.layer_norm`."""
    shape = list(normalized_shape)
    y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
    if suffers(x, mean, rstd, LARGE_MEAN):
        y, rest, rstd = torch.native_layer_norm(x - mean, shape, weight, bias, eps)
        mean = mean + rest
    leading = x.shape[: x.dim() - len(shape)]
    return finish(y, activation, residual), _wide(mean, x).view(leading), _wide(rstd, x).view(leading)


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.rms_norm`, which is the composition that torch takes on a CPU."""
    fused = getattr(torch, "_fused_rms_norm", None)
    if fused is None or not x.is_cuda or (weight is not None and weight.dtype != x.dtype):
        return reference.rms_norm(x, normalized_shape, weight, eps, activation, residual)
    y, rstd = fused(x, list(normalized_shape), weight, eps)
    leading = x.shape[: x.dim() - len(normalized_shape)]
    return finish(y, activation, residual), rstd.detach().view(leading)


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
    y, mean, rstd, limit = group_norm_once(x, num_groups, weight, bias, eps)
    if suffers(x, mean, rstd, limit):
        samples, channels = x.shape[:2]
        given, long = x, limit != LARGE_MEAN and x.numel() // (samples * num_groups) >= LONG
        if long:
            given = x.contiguous()
            y, mean, rstd, _ = group_norm_once(given, num_groups, weight, bias, eps)
        if not long or suffers(x, mean, rstd, LARGE_MEAN):
            groups = mean.repeat_interleave(channels // num_groups, dim=1)
            centred = given - groups.view(samples, channels, *(1,) * (x.dim() - 2))
            y, rest, rstd, _ = group_norm_once(centred, num_groups, weight, bias, eps)
            mean = mean + rest
        y = y.contiguous(memory_format=_memory_format(x))
    return finish(y, activation, residual), _wide(mean, x), _wide(rstd, x)


def group_norm_once(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, float]:
    """`y`, mean and rstd by one call of torch, and up to which mean/std it keeps its digits on a CPU."""
    samples, channels = x.shape[:2]
    if x.dtype in HALF and x.is_cpu:
        # With half parameters, or with none, the kernel keeps half statistics for the backward pass.
        weight = torch.ones(channels, dtype=torch.float32) if weight is None else weight.float()
        bias = torch.zeros(channels, dtype=torch.float32) if bias is None else bias.float()
    sizes = (samples, channels, x.numel() // (samples * channels), num_groups, eps)
    if x.is_contiguous():
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *sizes)
        return y, mean.detach(), rstd.detach(), LARGE_MEAN
    memory_format = _memory_format(x)
    y, mean, rstd = torch.native_group_norm(x.contiguous(memory_format=memory_format), weight, bias, *sizes)
    limit = LARGE_MEAN if x.dim() not in (4, 5) else LARGE_MEAN_SHORTCUT
    # On CUDA some versions of torch give the result without the memory format of the input.
    return y.contiguous(memory_format=memory_format), mean.detach(), rstd.detach(), limit


def finish(y: Tensor, activation: Activation | None, residual: Tensor | None) -> Tensor:
    """Residual and activation as torch's own calls."""
    return activate(y if residual is None else (y + residual).to(y.dtype), activation)


def dense(x: Tensor) -> Tensor:
    """A half input or gradient in a layout that kernels of the CPU have vectors for.

    For others BatchNorm has one that rounds its intermediate results to the half type.
    """
    return x if x.is_contiguous() else x.contiguous(memory_format=_memory_format(x))


def _memory_format(x: Tensor) -> torch.memory_format:
    for dims, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if x.dim() == dims and not x.is_contiguous() and x.is_contiguous(memory_format=memory_format):
            return memory_format
    return torch.contiguous_format


def suffers(x: Tensor, mean: Tensor, rstd: Tensor, limit: float) -> bool:
    """Is the mean of a float32 input on the CPU so large that the kernel has lost digits?"""
    if not x.is_cpu or x.dtype is not torch.float32:
        return False
    # NaN counts as suffering: it hides what others have.
    return not float(torch.linalg.vector_norm(mean * rstd, torch.inf)) <= limit


def _wide(statistic: Tensor, x: Tensor) -> Tensor:
    """Kernels of the CPU give the statistics of half inputs with half parameters in half precision."""
    return statistic.float() if x.dtype in HALF else statistic
