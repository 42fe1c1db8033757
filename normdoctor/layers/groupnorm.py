"""Group normalization that takes the place of `torch.nn.GroupNorm` one for one."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normdoctor.errors import UsageError

Backend = Literal["auto", "reference", "torch"]


class GroupNorm(nn.Module):
    r"""Normalizes each sample over groups of its channels.

    The channels of an input of shape `(N, C, *)` are split, in their order, into `num_groups` groups of
    `C / num_groups`. With `A(n, g)` the set of all values of sample `n` in group `g`, at every position,

        mean[n, g] = sum(x over A(n, g)) / |A|
        var[n, g]  = sum((x - mean[n, g])**2 over A(n, g)) / |A|
        y[n, c, *] = (x[n, c, *] - mean[n, g(c)]) / sqrt(var[n, g(c)] + eps) * weight[c] + bias[c]

    The variance is the biased one and is taken in a second pass, around the mean: the shortcut
    `E[x**2] - E[x]**2` loses all its digits once the mean is some thousand times the standard deviation.
    Statistics, normalization and affine map are computed in float32 for float16 and bfloat16 inputs, and only
    the result is rounded.

    No statistic is taken over the batch. So the layer works with one sample, behaves alike in train and eval
    mode, and keeps no buffers. `num_groups=1` normalizes over all of a sample (not the LayerNorm of
    transformers, which sees one position at a time); `num_groups=num_channels` is InstanceNorm. Of very few
    values hardly more than their signs survives normalization: keep 16 or more in a group.

    Args:
        num_groups: Number of groups; divides `num_channels`.
        num_channels: Number of channels `C` of the input.
        eps: Added to the variance, inside the square root.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        device: Where the parameters are made.
        dtype: Type of the parameters.
        bias: Whether an affine layer has a bias.
        backend: `"reference"` evaluates the formula above, `"torch"` calls torch's native kernel, `"auto"`
            takes the faster of the two, which is the native kernel.

    Shape:
        Input `(N, C, *)` with any number of further dimensions, none included; output of the same shape, type
        and memory format.

    State:
        `weight` and `bias` of shape `(C,)`, under torch's names: state dicts load both ways.

    Raises:
        ValueError: If `num_groups` does not divide `num_channels`, or if one sample has one value a group.
        RuntimeError: If an input has fewer than two dimensions, another number of channels, or a type that
            does not go with the parameters.

    Example:
        >>> layer = GroupNorm(4, 32)
        >>> layer(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])

    References:
        Wu and He, Group Normalization, ECCV 2018, https://arxiv.org/abs/1803.08494
    """

    __constants__ = ["num_groups", "num_channels", "eps", "affine"]
    num_groups: int
    num_channels: int
    eps: float
    affine: bool
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        if backend not in get_args(Backend):
            raise UsageError(f"backend is one of {', '.join(get_args(Backend))}; got {backend!r}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.backend: Backend = backend
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            value = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one and the shift to zero."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` of shape `(N, C, *)`."""
        if self.backend == "reference":
            return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show the settings as torch does."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The formula of `GroupNorm`, written out; differentiable any number of times."""
    _verify(x, num_groups, weight, bias)
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    # A view whatever the strides are, so that the result keeps the input's memory format.
    wide = x.to(dtype)
    grouped = torch.unflatten(wide, 1, (num_groups, x.shape[1] // num_groups))
    axes = tuple(range(2, grouped.dim()))
    centred = grouped - grouped.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    y = (centred / torch.sqrt(variance + eps)).flatten(1, 2)
    per_channel = (-1, *(1,) * (x.dim() - 2))
    if weight is not None:
        y = y * weight.to(dtype).view(per_channel)
    if bias is not None:
        y = y + bias.to(dtype).view(per_channel)
    return y.to(x.dtype)


def _verify(x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None) -> None:
    """Refuse what torch refuses, with its types of error."""
    if x.dim() < 2:
        raise RuntimeError(f"expected an input of 2 or more dimensions (N, C, *), got {x.dim()}")
    channels = x.shape[1]
    if not x.is_floating_point():
        raise RuntimeError(f"expected an input of a floating-point type, got {x.dtype}")
    if channels % num_groups != 0:
        raise RuntimeError(f"expected a number of channels divisible by {num_groups} groups, got {channels}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None:
            continue
        if value.shape != (channels,):
            raise RuntimeError(
                f"{name} is of shape {tuple(value.shape)}, but the input has {channels} channels"
            )
        if value.dtype not in (x.dtype, torch.float32) or (x.dtype == torch.float64 != value.dtype):
            raise RuntimeError(f"{name} of {value.dtype} does not go with an input of {x.dtype}")
    if x.shape[0] * channels // num_groups * x.shape[2:].numel() == 1:
        raise ValueError(f"expected more than one value a group, got an input of shape {tuple(x.shape)}")
