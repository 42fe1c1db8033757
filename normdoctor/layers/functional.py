"""The norms as functions: arguments are verified, a backend is chosen, and that one computes.

Each function takes `activation` and `residual`, `y = activation(norm(x) + residual)`, and returns `y`, then
the statistics it used, without a graph: None where the call is compiled, exported, recorded or otherwise
transformed, since it then goes to torch's own function of the same name, which gives none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from normdoctor.layers import fast, native, reference, verify
from normdoctor.layers.activations import Activation, activate
from normdoctor.layers.backends import Backend, chosen, transformed

Statistic = Tensor | None


def batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Statistic, Statistic]:
    """Normalize each channel of `x` (N, C, *) by the statistics of the batch.

    Returns `y`, and the mean and the biased variance of each channel, of shape `(C,)`.
    """
    verify.training_batch(x, eps)
    verify.per_channel(x, weight=weight, bias=bias)
    verify.residual(x, residual)
    if torch_itself(x, backend):
        y = F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
        return native.finish(y, activation, residual), None, None
    x = agreed(x)
    function = implementation("batch_norm", x, backend, weight)
    y, mean, variance = function(x, weight, bias, eps, activation, residual)
    return agreeing(y), mean, variance


def batch_norm_tracked(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`batch_norm` that also moves running statistics, where one call of torch does both; else None.

    Returns `y`, and the mean and `1 / sqrt(variance + eps)` of each channel.
    """
    if chosen(backend) != "auto" or x.numel() == 0:
        return None
    verify.training_batch(x, eps)
    verify.per_channel(x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    verify.residual(x, residual)
    found = fast.tracked(agreed(x), weight, bias, running_mean, running_var, momentum, eps)
    if found is None:
        return None
    y, mean, rstd = found
    return agreeing(native.finish(y, activation, residual)), mean, rstd


def fixed_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Normalize each channel of `x` (N, C, *) by statistics that are given: BatchNorm in eval mode."""
    verify.residual(x, residual)
    learns = torch.is_grad_enabled() and weight is not None and weight.requires_grad
    itself = torch_itself(x, backend)
    x = x if itself else agreed(x)
    function = None if itself else implementation("channel_affine", x, backend, weight)
    # The gradient of the scale of `x * scale + shift` has lost digits where the mean is large: then torch's.
    if function is not reference.channel_affine and (
        function is None or function is native.channel_affine or learns
    ):
        if itself:
            y = F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
            return native.finish(y, activation, residual)
        x = native.dense(x) if x.dtype in reference.HALF else x
        y = native.half_dense(F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), x)
        return agreeing(native.finish(y, activation, residual))
    if eps < 0.0:
        raise ValueError(f"eps must be non-negative, got {eps}")
    verify.floating(x)
    verify.per_channel(x, running_mean=mean, running_var=variance, weight=weight, bias=bias)
    if function is reference.channel_affine:
        return reference.fixed_norm(x, mean, variance, weight, bias, eps, activation, residual)
    wide = reference.computing_type(x.dtype)
    scale = torch.rsqrt(variance.to(wide) + eps)
    scale = scale if weight is None else scale * weight.to(wide)
    shift = -mean.to(wide) * scale
    shift = shift if bias is None else shift + bias.to(wide)
    return cast(Tensor, function(x, scale, shift, activation, residual))


def channel_affine(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """`activation(x * scale + shift + residual)` with one scale and shift a channel of `x` (N, C, *)."""
    verify.residual(x, residual)
    if torch_itself(x, backend):
        return reference.channel_affine(x, scale, shift, activation, residual)
    function = implementation("channel_affine", x, backend, scale)
    return cast(Tensor, function(x, scale, shift, activation, residual))


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Statistic, Statistic]:
    """Normalize over the last dimensions of `x`.

    Returns `y`, and the mean and `1 / sqrt(variance + eps)` of each row, of the shape of the leading
    dimensions.
    """
    verify.rows(x, normalized_shape, weight=weight, bias=bias)
    verify.residual(x, residual)
    if torch_itself(x, backend):
        y = F.layer_norm(x, list(normalized_shape), weight, bias, eps)
        return native.finish(y, activation, residual), None, None
    x = autocast(x)
    function = implementation("layer_norm", x, backend, weight, normalized_shape)
    y, mean, rstd = function(x, normalized_shape, weight, bias, eps, activation, residual)
    return y, mean, rstd


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Statistic]:
    """Divide by the root mean square over the last dimensions of `x`.

    Returns `y`, and `1 / sqrt(mean(x**2) + eps)` of each row, of the shape of the leading dimensions.
    """
    verify.rows(x, normalized_shape, mixed=True, weight=weight)
    verify.residual(x, residual)
    if torch_itself(x, backend):
        y = F.rms_norm(x, list(normalized_shape), weight, eps)
        return native.finish(y, activation, residual), None
    x = autocast(x)
    eps = torch.finfo(reference.computing_type(x.dtype)).eps if eps is None else eps
    function = implementation("rms_norm", x, backend, weight, normalized_shape)
    y, rstd = function(x, normalized_shape, weight, eps, activation, residual)
    return y, rstd


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Statistic, Statistic]:
    """Normalize each sample of `x` (N, C, *) over groups of its channels.

    Returns `y`, and the mean and `1 / sqrt(variance + eps)` of shape `(N, num_groups)`.
    """
    verify.groups(x, num_groups)
    verify.per_channel(x, weight=weight, bias=bias)
    verify.residual(x, residual)
    if torch_itself(x, backend):
        y = F.group_norm(x, num_groups, weight, bias, eps)
        return native.finish(y, activation, residual), None, None
    x = agreed(autocast(x))
    function = implementation("group_norm", x, backend, weight, num_groups)
    y, mean, rstd = function(x, num_groups, weight, bias, eps, activation, residual)
    return agreeing(y), mean, rstd


def instance_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    residual: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Statistic, Statistic]:
    """Normalize each channel of each sample of `x` (N, C, *): `group_norm` with one channel a group."""
    verify.positions(x)
    verify.floating(x)
    verify.per_channel(x, weight=weight, bias=bias)
    verify.residual(x, residual)
    if torch_itself(x, backend):
        y = F.instance_norm(x, None, None, weight, bias, True, 0.0, eps)
        return native.finish(y, activation, residual), None, None
    x = agreed(x)
    groups = max(x.shape[1], 1)  # an input may be without any channel
    function = implementation("group_norm", x, backend, weight, groups)
    y, mean, rstd = function(x, groups, weight, bias, eps, activation, residual)
    return agreeing(y), mean, rstd


def torch_itself(x: Tensor, backend: Backend) -> bool:
    """Does the call go to torch's function of the same name, which every tool around torch understands?"""
    return chosen(backend) in ("auto", "torch") and transformed(x)


def implementation(
    name: str, x: Tensor, backend: Backend, weight: Tensor | None, size: object = None
) -> Callable[..., Any]:
    """The function of this name in the backend that is to compute it."""
    choice = chosen(backend)
    if choice == "reference" or x.numel() == 0:
        return getattr(reference, name)  # type: ignore[no-any-return]
    if choice == "torch":
        return getattr(native, name)  # type: ignore[no-any-return]
    return fast.implementation(name, x, choice, size)


def autocast(x: Tensor) -> Tensor:
    """What autocast makes of the input of layer, group and RMS norm: they run in float32 on CUDA."""
    if x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype in reference.HALF:
        return x.float()
    return x


def agreed(x: Tensor) -> Tensor:
    """A single sample with strides about whose memory format all of torch agrees.

    The stride of a dimension of size one may be anything: that of the batch is not the usual one in
    `image.permute(2, 0, 1)[None]`. Then one part of torch takes the tensor for channels_last, the other does
    not, and the gradients of BatchNorm on a CPU are wrong if the gradient that comes in is in the other one.
    """
    if x.dim() not in (4, 5) or x.shape[0] != 1 or x.device.type != "cpu" or x.is_contiguous():
        return x
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    if not x.is_contiguous(memory_format=last) or x.stride(0) == x.numel():
        return x
    return x.clone(memory_format=last)


def agreeing(y: Tensor) -> Tensor:
    """`y`, whose gradient will be `agreed`."""
    if y.requires_grad and y.dim() in (4, 5) and y.shape[0] == 1:
        # There is no gradient of what a second derivative does not come through.
        y.register_hook(lambda grad: None if grad is None else agreed(grad))  # type: ignore[no-untyped-call]
    return y


__all__ = [
    "activate",
    "batch_norm",
    "channel_affine",
    "fixed_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
]
