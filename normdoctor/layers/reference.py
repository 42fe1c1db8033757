"""The formulas of the norms, written out: what every faster path is held against.

All functions compute in float32 for float16, bfloat16 and float32 inputs and in float64 for float64, and
round once, at the end. The variance is the biased one, taken in a second pass around the mean: the shortcut
`E[x**2] - E[x]**2` has lost all its digits once the mean is some thousand times the standard deviation.

Each returns `y` of the shape, type and memory format of `x`, followed by the statistics that were used: of
the computing type, without a graph. A `residual` of the shape of `x` is added to the normalized values, and
then the activation is taken: `y = activation(norm(x) + residual)`. All of it is plain torch, differentiable
any number of times. Nothing is verified here: that is done before a backend is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normdoctor.layers.activations import Activation, activate

HALF = (torch.float16, torch.bfloat16)


def computing_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which an input of this type is normalized."""
    return torch.float32 if dtype in HALF else dtype


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each channel of `x` (N, C, *) over the batch and all positions.

    Returns `y`, and the mean and the biased variance of each channel, of shape `(C,)`.
    """
    wide = x.to(computing_type(x.dtype))
    axes = (0, *range(2, x.dim()))
    centred, mean = center(wide, axes)
    variance = mean_over(centred.square(), axes)
    y = centred / torch.sqrt(variance + eps)
    y = _finish(y, x, per_channel(weight, x), per_channel(bias, x), activation, residual)
    return y, mean.detach().flatten(), variance.detach().flatten()


def fixed_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalize each channel of `x` (N, C, *) by a mean and a variance that are given."""
    dtype = computing_type(x.dtype)
    centred = x.to(dtype) - along_channels(mean.to(dtype), x)
    y = centred / torch.sqrt(along_channels(variance.to(dtype), x) + eps)
    return _finish(y, x, per_channel(weight, x), per_channel(bias, x), activation, residual)


def channel_affine(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """`activation(x * scale + shift + residual)` with one scale and shift a channel of `x` (N, C, *)."""
    wide = x.to(computing_type(x.dtype))
    return _finish(wide, x, per_channel(scale, x), per_channel(shift, x), activation, residual)


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize over the last dimensions of `x`, which are of `normalized_shape`.

    Returns `y`, and the mean and `1 / sqrt(variance + eps)` of each row, of the shape of the leading
    dimensions.
    """
    wide = x.to(computing_type(x.dtype))
    axes = tuple(range(-len(normalized_shape), 0))
    centred, mean = center(wide, axes)
    rstd = 1 / torch.sqrt(centred.square().mean(axes, keepdim=True) + eps)
    y = _finish(centred * rstd, x, weight, bias, activation, residual)
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
    """Divide by the root mean square over the last dimensions of `x`, which are of `normalized_shape`.

    An `eps` of None is the machine epsilon of the computing type. Returns `y`, and
    `1 / sqrt(mean(x**2) + eps)` of each row, of the shape of the leading dimensions.
    """
    wide = x.to(computing_type(x.dtype))
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(wide.dtype).eps if eps is None else eps
    rstd = 1 / torch.sqrt(wide.square().mean(axes, keepdim=True) + eps)
    y = _finish(wide * rstd, x, weight, None, activation, residual)
    return y, rstd.detach().view(x.shape[: x.dim() - len(normalized_shape)])


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: Activation | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each sample of `x` (N, C, *) over groups of consecutive channels and all positions.

    Instance normalization is the case of one channel a group. Returns `y`, and the mean and
    `1 / sqrt(variance + eps)` of shape `(N, num_groups)`.
    """
    wide = x.to(computing_type(x.dtype))
    # A view whatever the strides are, so that the result keeps the input's memory format.
    grouped = torch.unflatten(wide, 1, (num_groups, x.shape[1] // num_groups))
    axes = tuple(range(2, grouped.dim()))
    centred, mean = center(grouped, axes)
    rstd = 1 / torch.sqrt(mean_over(centred.square(), axes) + eps)
    y = (centred * rstd).flatten(1, 2)
    y = _finish(y, x, per_channel(weight, x), per_channel(bias, x), activation, residual)
    statistics = (x.shape[0], num_groups)
    return y, mean.detach().view(statistics), rstd.detach().view(statistics)


def center(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`x - mean(x)`, and the mean, both with the dimensions of `axes` kept.

    The mean of many values far from zero is itself rounded, and its error would enter the variance squared.
    So the mean of what is left is taken off as well.
    """
    first = mean_over(x.detach(), axes)
    left = x - first
    rest = mean_over(left, axes)
    return left - rest, first + rest


def mean_over(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean over axes, which are kept; one after the other, the last one first.

    Over several axes at once, of which the last is not dense, torch adds up value by value on a CPU: of two
    million float32 values in channels_last the mean was off by a hundredth of itself.
    """
    for axis in reversed(axes):
        x = x.mean(axis, keepdim=True)
    return x


def per_channel(value: Tensor | None, x: Tensor) -> Tensor | None:
    """A vector of one value a channel, in a shape that is broadcast over `x` (N, C, *)."""
    return None if value is None else along_channels(value, x)


def along_channels(value: Tensor, x: Tensor) -> Tensor:
    """As `per_channel`, of a vector that is there."""
    return value.reshape(-1, *(1,) * (x.dim() - 2))


def _finish(
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    activation: Activation | None,
    residual: Tensor | None,
) -> Tensor:
    """Scale, shift, residual and activation of normalized values, and the rounding to the type of `x`."""
    if weight is not None:
        y = y * weight.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)
    if residual is not None:
        y = y + residual.to(y.dtype)
    return activate(y, activation).to(x.dtype)
