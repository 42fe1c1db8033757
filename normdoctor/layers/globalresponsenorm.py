"""Global response normalization of ConvNeXt V2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normdoctor.layers import verify
from normdoctor.layers.fused import Fused
from normdoctor.layers.reference import computing_type
from normdoctor.layers.symbolic import leaf, traced


class GRN(Fused):
    r"""Lets the channels of a sample compete: each is scaled by its share of the response.

        G[i, c] = ||x[i, c]||                                      Euclidean length over all positions
        N[i, c] = G[i, c] / (mean of G[i] over the channels + eps)
        y       = x + weight * (x * N) + bias

    Weight and bias start at zero, so a new layer is the identity. It does not normalize: neither mean nor
    scale of the output is fixed, and it cannot take the place of a norm.

    Args:
        num_channels: Number of channels `C`.
        eps: Added to the mean of the lengths.
        channels_last: Whether the channels are the last dimension, as in ConvNeXt, or the second.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Shape:
        Input and output `(N, *, C)`, or `(N, C, *)` with `channels_last=False`.

    State:
        `weight` and `bias` of shape `(C,)`, as timm's GlobalResponseNorm has them.

    References:
        Woo et al., ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808
    """

    def __init__(
        self,
        num_channels: int,
        eps: float = 1e-6,
        channels_last: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.eps = eps
        self.channels_last = channels_last
        self.weight = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_channels, device=device, dtype=dtype))
        self._fuse(None, "auto")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Scale the channels of `input` by their shares."""
        if traced(input):
            return leaf(self, input)
        if input.dim() < 3:
            raise ValueError(f"expected 3D or higher input (got {input.dim()}D input)")
        verify.floating(input)
        channel = input.dim() - 1 if self.channels_last else 1
        if input.shape[channel] != self.num_channels:
            raise RuntimeError(
                f"expected {self.num_channels} channels at dim={channel}, got {input.shape[channel]}"
            )
        wide = input.to(computing_type(input.dtype))
        positions = tuple(d for d in range(1, input.dim()) if d != channel)
        length: Tensor = torch.linalg.vector_norm(wide, dim=positions, keepdim=True)
        share = length / (length.mean(channel, keepdim=True) + self.eps)
        shape = [self.num_channels if d == channel else 1 for d in range(input.dim())]
        weight, bias = (v.to(wide.dtype).view(shape) for v in (self.weight, self.bias))
        count = max(input.numel() // max(input.shape[0] * self.num_channels, 1), 1)
        self._keep(input, mean_square=length.detach().flatten(1).square() / count)
        return (wide + weight * (wide * share) + bias).to(input.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.num_channels}, eps={self.eps}, channels_last={self.channels_last}"
