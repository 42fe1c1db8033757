"""Batch normalization of padded sequences: the padding does not enter the statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from normdoctor.layers.activations import activate
from normdoctor.layers.batchnorm import _BatchNorm
from normdoctor.layers.reference import along_channels, computing_type
from normdoctor.layers.symbolic import leaf, traced


class MaskedBatchNorm(_BatchNorm):
    r"""BatchNorm over the positions that a mask marks as valid.

    With `mask` of shape `(N, *)`, true where there is data, and `n` its number of true values,

        mean[c] = sum(x over valid positions of channel c) / n
        var[c]  = sum((x - mean[c])**2 over valid positions) / n
        y       = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)    where the mask is
        true y       = 0                                                                       elsewhere

    So the result does not depend on how long the padding is or what it holds, NaN included, and no gradient
    flows into it. BatchNorm without a mask moves mean and variance towards those of the padding, the more the
    shorter the sequences are. The running statistics move as in BatchNorm; without any valid position they
    stay as they are. Without a mask it is BatchNorm.

    Args: those of BatchNorm.

    Shape:
        Input, residual and output `(N, C, *)`, mask `(N, *)` or `(N, 1, *)`, boolean.

    State:
        That of BatchNorm; state dicts load both ways.

    Raises:
        ValueError: If the mask is not of the input's shape without the channels, or not boolean.

    References:
        Ioffe and Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167
    """

    def forward(  # type: ignore[override]
        self, input: Tensor, mask: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize `input` of shape `(N, C, *)` at the positions where `mask` is true."""
        if traced(input):
            return leaf(self, input, mask, residual)
        if mask is None:
            return super().forward(input, residual)
        self._check_input_dim(input)
        valid = self._broadcast(mask, input)
        if not self._takes_statistics():
            y = self._by_running_statistics(input.where(valid, 0), self.activation, residual)
            return y.where(valid, 0)
        wide = input.to(computing_type(input.dtype))
        axes = (0, *range(2, input.dim()))
        count = valid.sum()
        zero = wide.new_zeros(())
        mean = torch.where(valid, wide, zero).sum(axes, keepdim=True) / count.clamp_min(1)
        centred = torch.where(valid, wide - mean, zero)
        variance = centred.square().sum(axes, keepdim=True) / count.clamp_min(1)
        y = centred / torch.sqrt(variance + self.eps)
        for operation, value in ((torch.mul, self.weight), (torch.add, self.bias)):
            if value is not None:
                y = operation(y, along_channels(value.to(y.dtype), input))
        y = activate(y if residual is None else y + residual.to(y.dtype), self.activation)
        self._take_masked(mean.detach().flatten(), variance.detach().flatten(), count, input)
        return torch.where(valid, y, zero).to(input.dtype)

    @torch.no_grad()
    def _take_masked(self, mean: Tensor, variance: Tensor, count: Tensor, input: Tensor) -> None:
        """Keep the statistics; the count is on the device, and nobody waits for it."""
        self._keep(input, mean, variance)
        unbiased = variance * (count.to(variance.dtype) / (count - 1).clamp_min(1))
        if self.running_mean is not None and self.running_var is not None:
            mean = torch.where(count > 0, mean, self.running_mean.to(mean.dtype))
            unbiased = torch.where(count > 0, unbiased, self.running_var.to(mean.dtype))
        self._track(mean, unbiased)

    @staticmethod
    def _broadcast(mask: Tensor, input: Tensor) -> Tensor:
        """The mask with a channel dimension of one."""
        shape = (input.shape[0], 1, *input.shape[2:])
        if mask.dtype != torch.bool or tuple(mask.shape) not in (shape, (shape[0], *shape[2:])):
            raise ValueError(
                f"expected a boolean mask of shape {(shape[0], *shape[2:])}, "
                f"got one of {mask.dtype} and shape {tuple(mask.shape)}"
            )
        return mask.reshape(shape)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
