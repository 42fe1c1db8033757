"""Layers under the eyes of a probe: they compute as always, inside one call that the probe takes for torch's.

A probe sees calls of torch through a torch function mode. Under any other such mode a layer calls torch's
function of the same name, which all tools know, and which rounds otherwise. A probe leaves a `Request` at the
layers for the time of a forward instead. Then nothing differs from a forward that nobody watches, and
BatchNorm hands over the statistics that it has found: the probe need not read the input for them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from normdoctor.layers import backends, native, reference, verify
from normdoctor.layers.cpu import channels
from normdoctor.layers.cpu.common import far, wide

if TYPE_CHECKING:
    from normdoctor.layers.fused import Norm

#: A function that a probe sees, and its arguments behind the input.
Seen = tuple[Callable[..., Tensor], tuple[Any, ...]]


def asked(layer: Norm, x: Tensor) -> bool:
    """Does a probe watch this forward, and may the layer compute in its own way?"""
    if torch.compiler.is_compiling() or layer.statistics.request is None:
        return False
    return torch._C._is_torch_function_mode_enabled() and not backends.special(x)


def shown(layer: Norm, x: Tensor, residual: Tensor | None) -> Tensor:
    """The forward of a layer before the eyes of the probe: the norm in one call, then what follows it."""
    verify.residual(x, residual)
    function, given = layer._seen_as()
    return native.finish(function(x, *given, layer=layer), layer.activation, residual)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *,
    layer: Any,
) -> Tensor:
    """BatchNorm with the arguments of `F.batch_norm`, and the layer that computes it."""
    if torch._C._is_torch_function_mode_enabled():  # one mode after the other, as torch's functions do
        given = (input, running_mean, running_var, weight, bias, training, momentum, eps)
        return handle_torch_function(batch_norm, (input,), *given, layer=layer)
    request = layer.statistics.request
    if not training or request is None or not request.by_samples or input.numel() == 0:
        y: Tensor = layer._normalize(input)
        if training and request is not None:
            request.whole = layer.statistics.mean, layer.statistics.var
        return y
    layer._check_input_dim(input)
    verify.training_batch(input, eps)
    verify.per_channel(input, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    y, mean, variance, request.samples = by_samples(input, weight, bias, eps)
    count = input.numel() // input.shape[1]
    layer._track(mean, variance * (count / (count - 1)))
    return y


def _by_itself(name: str) -> Callable[..., Tensor]:
    """A function of this name that lets the layer compute; its arguments are torch's."""

    def function(input: Tensor, *rest: Any, layer: Norm) -> Tensor:
        if torch._C._is_torch_function_mode_enabled():
            return handle_torch_function(function, (input,), input, *rest, layer=layer)
        return layer._normalize(input)

    function.__name__ = name
    return function


layer_norm = _by_itself("layer_norm")
rms_norm = _by_itself("rms_norm")
group_norm = _by_itself("group_norm")
instance_norm = _by_itself("instance_norm")
#: No function of torch's: a probe sees nothing of it.
unseen = _by_itself("own_norm")


def by_samples(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """As `reference.batch_norm`, then mean and biased variance of each channel of each sample, (N, C).

    They are found first, and give those of the batch (Chan, Golub and LeVeque).
    """
    if x.dtype in reference.HALF:
        x = native.dense(x)
    means, variances = _of_samples(x.detach())
    between, mean = torch.var_mean(means, 0, correction=0)
    variance = variances.mean(0) + between
    y = channels.normalized(x, wide(weight, x), wide(bias, x), mean, variance, eps)
    return y, mean, variance, (means, variances)


def _of_samples(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.to(reference.computing_type(x.dtype))
    if x.dim() == 2:
        return x.clone(), torch.zeros_like(x)
    if x.device.type == "cpu" and x.is_contiguous():
        means, variances = channels.of_samples(x)
        if not far(means, torch.rsqrt(variances), native.LARGE_MEAN):
            return means, variances
    positions = x.flatten(2)
    means = positions.mean(2)
    return means, (positions - means.unsqueeze(2)).square_().mean(2)
