"""The norms as Triton kernels, registered with torch so that compilers and exporters see them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from normdoctor.layers.activations import Activation
from normdoctor.layers.kernels import layout, operators

__all__ = ["batch_norm", "channel_affine", "group_norm", "layer_norm", "rms_norm", "usable"]

#: Triton's interpreter takes tensors of the CPU.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: The widest row that a program holds.
_WIDEST = 1 << 16


def usable(name: str, x: Tensor, size: object = None) -> bool:
    """Do the kernels take this input? `size` is the normalized shape, or the number of groups."""
    if x.dtype not in _DTYPES or x.numel() == 0 or not (x.is_cuda or _INTERPRETED):
        return False
    if name in ("layer_norm", "rms_norm"):
        return isinstance(size, Sequence) and math.prod(size) <= _WIDEST
    return name != "group_norm" or x.shape[0] <= layout.GRID


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.batch_norm`."""
    kind = activation or "none"
    y, statistics = operators.slab_norm(x, weight, bias, residual, x.shape[1], True, eps, kind)
    mean, variance, _ = statistics.detach().flatten(1).unbind(0)
    return y, mean, variance


def channel_affine(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As `reference.channel_affine`."""
    y: Tensor = operators.channel_affine(x, scale, shift, residual, activation or "none")
    return y


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
    kind = activation or "none"
    y, statistics = operators.slab_norm(x, weight, bias, residual, num_groups, False, eps, kind)
    mean, _, rstd = statistics.detach().unbind(0)
    return y, mean, rstd


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
    width, kind = math.prod(normalized_shape), activation or "none"
    y, mean, rstd = operators.row_norm(x, weight, bias, residual, width, True, eps, kind)
    leading = x.shape[: x.dim() - len(normalized_shape)]
    return y, mean.detach().view(leading), rstd.detach().view(leading)


def rms_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `reference.rms_norm`."""
    width, kind = math.prod(normalized_shape), activation or "none"
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    y, _, rstd = operators.row_norm(x, weight, None, residual, width, False, eps, kind)
    return y, rstd.detach().view(x.shape[: x.dim() - len(normalized_shape)])
