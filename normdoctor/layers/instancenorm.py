"""Instance normalization that takes the place of `torch.nn.InstanceNorm1d`, `2d` and `3d` one for one."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm as _TorchInstanceNorm

from normdoctor.layers import functional, native, verify, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.batchnorm import move
from normdoctor.layers.fused import Norm


class _InstanceNorm(Norm, _TorchInstanceNorm):
    r"""Normalizes each channel of each sample over its positions.

    With the `n` values of channel `c` of sample `i` in an input of shape `(N, C, *)`,

        mean[i, c] = sum(x over positions) / n
        var[i, c]  = sum((x - mean[i, c])**2 over positions) / n
        y          = activation((x - mean) / sqrt(var + eps) * weight[c] + bias[c] + residual)

    It takes contrast and brightness of each channel off an image, which is what style transfer wants, and
    with them whatever a classifier would read from the size of a channel. Without running statistics, the
    default, train and eval mode are alike. With them, eval mode normalizes by averages over the samples that
    were seen in training:

        running_mean <- (1 - momentum) * running_mean + momentum * (mean of mean[i] over i)
        running_var  <- (1 - momentum) * running_var  + momentum * (mean of var[i] over i) * n / (n - 1)

    `num_batches_tracked` is there, as in torch, but never counted, and a `momentum` of None means 0.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the variance, inside the square root.
        momentum: Weight of the new batch in the running statistics.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        track_running_stats: Whether to keep running statistics and to use them in eval mode.
        device: Where parameters and buffers are made.
        dtype: Type of parameters and buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)` or, unbatched, `(C, *)`, with the dimensions of torch's layer
        of the same name.

    State:
        `weight` and `bias`, and `running_mean`, `running_var`, `num_batches_tracked`, where they are asked
        for, under torch's names: state dicts load both ways.

    Raises:
        ValueError: If an input has the wrong number of dimensions or channels, or a single position.

    References:
        Ulyanov, Vedaldi and Lempitsky, Instance Normalization, 2016, https://arxiv.org/abs/1607.08022
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)
        self._fuse(activation, backend)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        if functional.torch_itself(input, self.backend):
            verify.residual(input, residual)
            return native.finish(_TorchInstanceNorm.forward(self, input), activation, residual)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        self._check_channels(input)
        if input.dim() == self._unbatched():
            added = None if residual is None else residual.unsqueeze(0)
            return self._batched(input.unsqueeze(0), activation, added).squeeze(0)
        return self._batched(input, activation, residual)

    def _seen_as(self) -> watched.Seen:
        own = self.training or not self.track_running_stats
        running = (self.running_mean, self.running_var)
        return watched.instance_norm, (*running, self.weight, self.bias, own, self.momentum or 0.0, self.eps)

    def _batched(self, x: Tensor, activation: Activation | None, residual: Tensor | None) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        parameters = (self.weight, self.bias, self.eps, activation, residual)
        if not self.training and self.track_running_stats and mean is not None and variance is not None:
            return functional.fixed_norm(x, mean, variance, *parameters, backend=self.backend)
        y, found, rstd = functional.instance_norm(x, *parameters, backend=self.backend)
        if found is not None and rstd is not None and x.numel() > 0:
            self._keep(x, found, rstd=rstd, eps=self.eps)
            self._track(found, rstd, x.shape[2:].numel())
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, rstd: Tensor, count: int) -> None:
        """Move the running statistics towards the mean over the samples of those of a batch."""
        if self.running_mean is None and self.running_var is None:
            return
        momentum = self.momentum or 0.0
        unbiased = (rstd.pow(-2) - self.eps).clamp_min(0) * (count / max(count - 1, 1))
        move(self.running_mean, mean.mean(0), momentum)
        move(self.running_var, unbiased.mean(0), momentum)

    def _unbatched(self) -> int:
        """Number of dimensions of an input without a batch."""
        return int(self._get_no_batch_dim())  # type: ignore[no-untyped-call]

    def _check_channels(self, input: Tensor) -> None:
        axis = input.dim() - self._unbatched()
        found = input.shape[axis]
        if found == self.num_features:
            return
        if self.affine or self.track_running_stats:
            raise ValueError(
                f"expected input's size at dim={axis} to match num_features ({self.num_features}), "
                f"but got: {found}."
            )
        warnings.warn(
            f"input's size at dim={axis} is {found} and does not match num_features "
            f"({self.num_features}), which is not used because affine=False",
            stacklevel=4,
        )


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """InstanceNorm of inputs `(N, C, L)` or `(C, L)`; its page is that of `_InstanceNorm`, above."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """InstanceNorm of inputs `(N, C, H, W)` or `(C, H, W)`; its page is that of `_InstanceNorm`, above."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """InstanceNorm of `(N, C, D, H, W)` or `(C, D, H, W)`; its page is that of `_InstanceNorm`, above."""
