"""Dynamic tanh: a layer in the place of a norm that takes no statistics at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normdoctor.layers import verify
from normdoctor.layers.fused import Fused
from normdoctor.layers.reference import computing_type
from normdoctor.layers.symbolic import leaf, traced


class DyT(Fused):
    r"""Squashes large values, as norms of trained transformers were seen to do.

        y = weight * tanh(alpha * x) + bias                        alpha a single learnt number

    It does not normalize: it has no statistic of its input, and a network has to be trained with it from the
    start. The weights of a LayerNorm that it replaces do not fit.

    Args:
        normalized_shape: Sizes of the last dimensions, one weight and bias for each element.
        alpha: Initial value of the number; 0.5 in vision, less in wide language models.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Shape:
        Input and output `(*, *normalized_shape)`.

    State:
        `alpha` of shape `(1,)`, `weight` (initially one) and `bias` (initially zero) of `normalized_shape`,
        as in the authors' code.

    References:
        Zhu et al., Transformers without Normalization, CVPR 2025, https://arxiv.org/abs/2503.10622
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        alpha: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = sizes
        self.alpha_init_value = alpha
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.weight = nn.Parameter(torch.empty(sizes, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(sizes, device=device, dtype=dtype))
        self._fuse(None, "auto")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set alpha to its initial value, the scale to one and the shift to zero."""
        nn.init.constant_(self.alpha, self.alpha_init_value)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Squash the values of `input`."""
        if traced(input):
            return leaf(self, input)
        verify.rows(input, self.normalized_shape, weight=self.weight, bias=self.bias)
        wide = computing_type(input.dtype)
        y = torch.tanh(self.alpha.to(wide) * input.to(wide))
        return (y * self.weight.to(wide) + self.bias.to(wide)).to(input.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.normalized_shape}, alpha={self.alpha_init_value}"
