"""Group normalization that takes the place of `torch.nn.GroupNorm` one for one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normdoctor.layers import direct, functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.fused import Norm


class GroupNorm(Norm, nn.GroupNorm):
    r"""Normalizes each sample over groups of its channels.

    The channels of an input of shape `(N, C, *)` are split, in their order, into `num_groups` groups of
    `C / num_groups`. With `A(n, g)` the set of all values of sample `n` in group `g`, at every position,

        mean[n, g] = sum(x over A(n, g)) / |A|
        var[n, g]  = sum((x - mean[n, g])**2 over A(n, g)) / |A|
        xhat       = (x - mean[n, g]) / sqrt(var[n, g] + eps)
        y[n, c, *] = activation(xhat[n, c, *] * weight[c] + bias[c] + residual[n, c, *])

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
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input and residual `(N, C, *)` with any number of further dimensions, none included; output of the
        same shape, type and memory format.

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
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        self._fuse(activation, backend)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        y, mean, rstd = functional.group_norm(
            input,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation,
            residual,
            backend=self.backend,
        )
        self._keep(input, mean, rstd=rstd, eps=self.eps)
        return y

    _direct = direct.group_norm

    def _seen_as(self) -> watched.Seen:
        return watched.group_norm, (self.num_groups, self.weight, self.bias, self.eps)
