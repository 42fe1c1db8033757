"""The shortest way through a layer: one call of torch's kernel, of a plain tensor on the CPU, in eager mode.

Behind a norm of a few MB the code of everything around it has to be fetched again, and costs a tenth of the
norm. So the cases that nets consist of come here first; what is None here goes the long way, which refuses,
chooses and mends. Both compute the same to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from normdoctor.layers import backends, functional, native, verify
from normdoctor.layers.cpu import channels, groups
from normdoctor.layers.reference import HALF

if TYPE_CHECKING:
    from normdoctor.layers.batchnorm import _BatchNorm
    from normdoctor.layers.groupnorm import GroupNorm
    from normdoctor.layers.layernorm import LayerNorm


vector_norm = torch.linalg.vector_norm


def open_to(x: Tensor) -> bool:
    """Is it a plain tensor on the CPU with values, and is nothing else at work than eager torch?"""
    return x.is_cpu and backends.chosen("auto") == "auto" and not backends.special(x) and x.numel() > 0


def layer_norm(layer: LayerNorm, x: Tensor, /) -> Tensor | None:
    """LayerNorm; torch's kernel looks at its arguments itself."""
    if not open_to(x):
        return None
    shape = layer.normalized_shape
    y, mean, rstd = torch.native_layer_norm(x, shape, layer.weight, layer.bias, layer.eps)
    if x.dtype is torch.float32 and not float(vector_norm(mean * rstd, torch.inf)) <= native.LARGE_MEAN:
        return None
    layer.statistics.keep_rows(mean, rstd, layer.eps, x.shape, shape)
    return y


def group_norm(layer: GroupNorm, x: Tensor, /) -> Tensor | None:
    """GroupNorm of inputs that nothing is to be refused of."""
    weight, bias, num_groups, eps = layer.weight, layer.bias, layer.num_groups, layer.eps
    if not open_to(x) or x.dim() < 2 or x.shape[1] != layer.num_channels:
        return None
    if x.numel() <= len(x) * num_groups or not (_fits(weight, x) and _fits(bias, x)):
        return None
    if x.is_contiguous() and num_groups < layer.num_channels:
        y, mean, rstd, limit = native.group_norm_once(x, num_groups, weight, bias, eps)
        if native.suffers(x, mean, rstd, limit):
            return None
    else:
        y, mean, rstd = groups.group_norm(functional.agreed(x), num_groups, weight, bias, eps)
        y = functional.agreeing(y)
    layer.statistics.keep(mean, rstd=rstd, eps=eps)
    return y


def _fits(vector: Tensor | None, x: Tensor) -> bool:
    return vector is None or (vector.dtype is x.dtype and vector.numel() == x.shape[1])


def batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor | None:
    """BatchNorm that moves its running statistics, or that normalizes by them."""
    mean, variance, momentum = layer.running_mean, layer.running_var, layer.momentum
    if mean is None or variance is None or momentum is None or not layer.track_running_stats:
        return None
    # About the strides of a single sample, and of its gradient, not all of torch agrees.
    if not open_to(x) or len(x) == 1:
        return None
    weight, bias, eps = layer.weight, layer.bias, layer.eps
    if not layer.training:
        half = x.dtype in HALF
        x = native.dense(x) if half else x
        y = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False)
        return native.half_dense(y, x) if half else y
    verify.training_batch(x, eps)
    verify.per_channel(x, running_mean=mean, running_var=variance, weight=weight, bias=bias)
    found = channels.tracked(x, weight, bias, mean, variance, momentum, eps)
    if found is None:
        return None
    y, centre, rstd = found
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    layer.statistics.keep(centre, rstd=rstd, eps=eps)
    return y
