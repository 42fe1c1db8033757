"""ScaleNorm: the length of each row, and one learnt number for all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normdoctor.layers import verify
from normdoctor.layers.fused import Fused
from normdoctor.layers.reference import computing_type
from normdoctor.layers.symbolic import leaf, traced


class ScaleNorm(Fused):
    r"""Brings each row to the same, learnt length.

        y = weight * x / max(||x||, eps)                           ||x|| the Euclidean length of a row

    `weight` is a single number, initially `sqrt(dim)`, so that at the start it is RMSNorm without a weight.
    Length and product are computed in float32 for float16 and bfloat16 inputs.

    Args:
        dim: Size of the last dimension, whose length is taken.
        eps: Smallest length to divide by.
        device: Where the parameter is made.
        dtype: Type of the parameter.

    Shape:
        Input and output `(*, dim)`.

    State:
        `weight` of shape `(1,)`.

    References:
        Nguyen and Salazar, Transformers without Tears, IWSLT 2019, https://arxiv.org/abs/1910.05895
    """

    def __init__(
        self,
        dim: int,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self._fuse(None, "auto")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the length to the square root of the size."""
        nn.init.constant_(self.weight, self.dim**0.5)

    def forward(self, input: Tensor) -> Tensor:
        """Bring the rows of `input` to the learnt length."""
        if traced(input):
            return leaf(self, input)
        verify.rows(input, (self.dim,))
        wide = input.to(computing_type(input.dtype))
        length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        self._keep(input, mean_square=length.detach().squeeze(-1).square() / max(self.dim, 1))
        return (self.weight.to(wide.dtype) * wide / length.clamp_min(self.eps)).to(input.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.dim}, eps={self.eps}"
