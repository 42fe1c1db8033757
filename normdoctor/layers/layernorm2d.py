"""Layer normalization over the channels of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.layernorm import LayerNorm
from normdoctor.layers.symbolic import leaf, traced


class LayerNorm2d(LayerNorm):
    r"""Normalizes the channels of each position of an image: `LayerNorm` over dimension 1 of `(N, C, H, W)`.

    With the `C` values at one position `(n, h, w)`,

        mean[n, h, w] = sum(x over c) / C
        var[n, h, w]  = sum((x - mean[n, h, w])**2 over c) / C
        y             = activation((x - mean) / sqrt(var + eps) * weight[c] + bias[c] + residual)

    This is the norm of ConvNeXt. It is not `GroupNorm(1, C)`, which takes one mean of all channels and
    positions.

    Args:
        num_channels: Number of channels `C`.
        eps: Added to the variance, inside the square root; 1e-6 as in ConvNeXt.
        elementwise_affine: Whether to learn `weight` (initially one) and `bias` (initially zero).
        bias: Whether an affine layer has a bias.
        device: Where the parameters are made.
        dtype: Type of the parameters.
        activation: Name of the activation to end with.
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, H, W)`; of torch's kernels the output comes in channels_last,
        whose rows of channels they need, and convolutions behind go on in it.

    State:
        `weight` and `bias` of shape `(C,)`: as timm's and torchvision's LayerNorm2d have them.

    References:
        Liu et al., A ConvNet for the 2020s, CVPR 2022, https://arxiv.org/abs/2201.03545
    """

    def __init__(
        self,
        num_channels: int,
        eps: float = 1e-6,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(
            num_channels,
            eps,
            elementwise_affine,
            bias,
            device,
            dtype,
            activation=activation,
            backend=backend,
        )

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize the channels of `input` of shape `(N, C, H, W)`."""
        if traced(input):
            return leaf(self, input, residual)
        if input.dim() != 4:
            raise ValueError(f"expected 4D input (got {input.dim()}D input)")
        last = input.permute(0, 2, 3, 1)
        y = super().forward(last, None if residual is None else residual.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)
