"""Layers that exist in converted models only: norms with what hung behind them, or in front of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normdoctor import layers
from normdoctor.layers import functional, native
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend


class Tail(nn.Module):
    """A norm that goes on with children of its own: `drop` and `act` of the layer that it replaced."""

    _tail: tuple[str, ...]

    def forward(self, input: Tensor, *more: Any) -> Tensor:
        """Normalize, then run the children."""
        y: Tensor = super().forward(input, *more)
        for name in self._tail:
            y = self._modules[name](y)  # type: ignore[misc]
        return y


class Rest(Tail):
    """What remains of a norm with an activation once the norm is folded away."""

    def forward(self, input: Tensor, *more: Any) -> Tensor:
        """Run the children."""
        y = input
        for name in self._tail:
            y = self._modules[name](y)  # type: ignore[misc]
        return y


class BiasedRMSNorm(layers.RMSNorm):
    """RMSNorm with the bias of the LayerNorm that it replaced: `rms(x) * weight + bias`."""

    bias: Tensor | None

    def __init__(self, normalized_shape: Any, eps: float, *, affine: bool, bias: bool, **more: Any) -> None:
        super().__init__(normalized_shape, eps, affine, **more)
        self.register_parameter("bias", nn.Parameter(torch.zeros_like(self.weight)) if bias else None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Divide the rows of `x` by their root mean square, scale and shift."""
        y, _ = functional.rms_norm(x, self.normalized_shape, self.weight, self.eps, backend=self.backend)
        y = y if self.bias is None else y + self.bias
        return native.finish(y, self.activation, residual)


class _Standardized(nn.Module):
    """Takes the running statistics of a BatchNorm off its input, then normalizes.

    So a trained net keeps its function as far as a norm of single samples can keep it. Where the layer in
    front is a convolution of its own, the statistics are folded into that instead.
    """

    running_mean: Tensor
    running_var: Tensor
    eps: float

    def standardize(self, mean: Tensor, variance: Tensor) -> None:
        """Set the statistics: those tensors themselves."""
        self.register_buffer("running_mean", mean)
        self.register_buffer("running_var", variance)

    def forward(self, input: Tensor, *more: Any) -> Tensor:
        """`norm((x - running_mean) / sqrt(running_var + eps))`."""
        x = functional.fixed_norm(input, self.running_mean, self.running_var, eps=self.eps)
        y: Tensor = super().forward(x, *more)
        return y


class StandardizedGroupNorm(_Standardized, layers.GroupNorm):
    """GroupNorm of what a trained BatchNorm would have normalized by its running statistics."""


class ChannelNorm(layers.LayerNorm):
    """LayerNorm over the channels at each position of `(N, C, *)`, with any number of dimensions."""

    def __init__(
        self,
        num_channels: int,
        eps: float,
        affine: bool,
        bias: bool,
        device: Any = None,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(num_channels, eps, affine, bias, device, activation=activation, backend=backend)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize the channels of `input`; `residual` is added before the activation."""
        if input.dim() == 2:
            return super().forward(input, residual)
        last = None if residual is None else residual.movedim(1, -1)
        return super().forward(input.movedim(1, -1), last).movedim(-1, 1)


class StandardizedChannelNorm(_Standardized, ChannelNorm):
    """LayerNorm over channels of what a trained BatchNorm would have normalized."""


class TailedBatchNorm1d(Tail, layers.BatchNorm1d):
    """BatchNorm1d and what follows it."""


class TailedBatchNorm2d(Tail, layers.BatchNorm2d):
    """BatchNorm2d and what follows it."""


class TailedBatchNorm3d(Tail, layers.BatchNorm3d):
    """BatchNorm3d and what follows it."""


class TailedSyncBatchNorm(Tail, layers.SyncBatchNorm):
    """SyncBatchNorm and what follows it."""


class TailedFrozenBatchNorm(Tail, layers.FrozenBatchNorm):
    """FrozenBatchNorm and what follows it."""


class TailedBatchRenorm(Tail, layers.BatchRenorm):
    """BatchRenorm and what follows it."""


class TailedGhostBatchNorm(Tail, layers.GhostBatchNorm):
    """GhostBatchNorm and what follows it."""


class TailedGroupNorm(Tail, layers.GroupNorm):
    """GroupNorm and what follows it."""


class TailedStandardizedGroupNorm(Tail, StandardizedGroupNorm):
    """StandardizedGroupNorm and what follows it."""


class TailedChannelNorm(Tail, ChannelNorm):
    """ChannelNorm and what follows it."""


class TailedStandardizedChannelNorm(Tail, StandardizedChannelNorm):
    """StandardizedChannelNorm and what follows it."""


class TailedLayerNorm(Tail, layers.LayerNorm):
    """LayerNorm and what follows it."""


class TailedLayerNorm2d(Tail, layers.LayerNorm2d):
    """LayerNorm2d and what follows it."""


class TailedInstanceNorm1d(Tail, layers.InstanceNorm1d):
    """InstanceNorm1d and what follows it."""


class TailedInstanceNorm2d(Tail, layers.InstanceNorm2d):
    """InstanceNorm2d and what follows it."""


class TailedInstanceNorm3d(Tail, layers.InstanceNorm3d):
    """InstanceNorm3d and what follows it."""


class TailedRMSNorm(Tail, layers.RMSNorm):
    """RMSNorm and what follows it."""


class TailedBiasedRMSNorm(Tail, BiasedRMSNorm):
    """BiasedRMSNorm and what follows it."""


_TAILED = {kind.__mro__[2]: kind for kind in Tail.__subclasses__() if kind is not Rest}


def with_tail(layer: nn.Module, tail: tuple[str, ...]) -> nn.Module:
    """The same fresh layer, going on with the children of these names once it has them."""
    if tail:
        layer.__class__ = _TAILED[type(layer)]
        vars(layer)["_tail"] = tail
    return layer
