"""Local response normalization that takes the place of `torch.nn.LocalResponseNorm` one for one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from normdoctor.layers import functional, verify
from normdoctor.layers.backends import Backend, chosen
from normdoctor.layers.fused import Fused
from normdoctor.layers.reference import computing_type
from normdoctor.layers.symbolic import leaf, traced


class LocalResponseNorm(Fused, nn.LocalResponseNorm):
    r"""Divides each value by a power of the squares in the channels around it.

        y[c] = x[c] / (k + alpha / size * sum(x[j]**2))**beta      j = c - size // 2, ..., c + (size - 1) // 2

    Channels that are not there count as zero, and the sum is always divided by `size`. The norm of AlexNet;
    of no use in a new network. The squares are taken in float32 for float16 and bfloat16 inputs (float16 has
    none above 65504, that is for `x` above 255).

    Args:
        size: Number of channels to sum over.
        alpha: Factor of the mean square.
        beta: Exponent.
        k: What is added.
        backend: "reference" evaluates the formula above, "torch" calls torch's function, also in half
            precision.

    Shape:
        Input and output `(N, C, *)` with one further dimension or more.

    State:
        None.

    Raises:
        ValueError: If an input has fewer than three dimensions.

    References:
        Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks,
        NeurIPS 2012, section 3.3
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(size, alpha, beta, k)
        self._fuse(None, backend)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` of shape `(N, C, *)`."""
        if traced(input):
            return leaf(self, input)
        if input.dim() < 3:
            raise ValueError(f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)")
        parameters = (self.size, self.alpha, self.beta, self.k)
        if functional.torch_itself(input, self.backend) or chosen(self.backend) == "torch":
            return F.local_response_norm(input, *parameters)
        verify.floating(input)
        wide = input.to(computing_type(input.dtype))
        if chosen(self.backend) == "reference":
            return local_response_norm(wide, *parameters).to(input.dtype)
        return pooled(wide, *parameters).to(input.dtype)


def pooled(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The formula by torch's average pooling over channels and positions, of any strides."""
    if x.numel() == 0:
        return x.clone()
    squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
    squares = F.pad(squares, (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
    return x / (k + alpha * mean) ** beta


def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """The formula of `LocalResponseNorm`, written out."""
    around = (0, 0) * (x.dim() - 2) + (size // 2, (size - 1) // 2)
    squares = F.pad(x.square(), around).unfold(1, size, 1).sum(-1)
    return x / (k + alpha / size * squares) ** beta
