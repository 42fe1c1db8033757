"""Weight standardization: filters of mean zero and variance one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normdoctor.layers.reference import computing_type


class WeightStandardization(nn.Module):
    r"""Takes mean and scale off each filter of a weight.

        mean[o] = mean of v over all dimensions but `dim`,      var[o] likewise, biased
        w       = (v - mean) / sqrt(var + eps)

    To be used with GroupNorm behind it, whose scale takes the place of the filters'; the pair trains as
    BatchNorm does, with batches of one or two samples. It takes no statistic of activations.

    Args:
        dim: Dimension of the filters (0 for Linear and Conv, 1 for ConvTranspose).
        eps: Added to the variance, inside the square root.

    References:
        Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019,
        https://arxiv.org/abs/1903.10520
    """

    def __init__(self, dim: int = 0, eps: float = 1e-6) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, v: Tensor) -> Tensor:
        """The standardized weight."""
        wide = v.to(computing_type(v.dtype))
        axes = tuple(d for d in range(v.dim()) if d != self.dim % v.dim())
        centred = wide - wide.mean(axes, keepdim=True)
        variance = centred.square().mean(axes, keepdim=True)
        return (centred / torch.sqrt(variance + self.eps)).to(v.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A weight that is assigned is standardized when it is used."""
        return weight

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"dim={self.dim}, eps={self.eps}"


def weight_standardization(
    module: nn.Module, name: str = "weight", dim: int = 0, eps: float = 1e-6
) -> nn.Module:
    """Let `module` use a standardized weight.

    The state dict holds the plain weight as `parametrizations.<name>.original`.
    `torch.nn.utils.parametrize.remove_parametrizations` leaves the standardized weight as a plain one.

    Args:
        module: Layer with the parameter; it is changed, and returned.
        name: Name of the parameter, of two dimensions or more.
        dim: Dimension of the filters.
        eps: Added to the variance, inside the square root.

    Raises:
        ValueError: If the parameter has fewer than two dimensions.

    Example:
        >>> layer = weight_standardization(nn.Conv2d(16, 32, 3))
    """
    weight = getattr(module, name)
    if weight.dim() < 2:
        raise ValueError(f"expected a weight of two dimensions or more, got {tuple(weight.shape)}")
    parametrize.register_parametrization(module, name, WeightStandardization(dim, eps))
    return module
