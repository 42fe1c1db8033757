"""Root mean square normalization that takes the place of `torch.nn.RMSNorm` one for one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normdoctor.layers import functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.fused import Norm
from normdoctor.layers.reference import computing_type


class RMSNorm(Norm, nn.RMSNorm):
    r"""Divides each row by its root mean square; no mean is taken off.

    With the `n` values of one row `r`: the last dimensions, which are of `normalized_shape`, for one index of
    all others,

        rms[r] = sqrt(sum(x**2 over r) / n + eps)
        y      = activation(x / rms * weight + residual)

    It is LayerNorm of a row whose mean is zero: in a pre-norm transformer whose residual stream is centred,
    the two are the same. Squares, sum and product are computed in float32 for float16 and bfloat16 inputs,
    and rounded once. (Llama in transformers rounds before the weight; Gemma multiplies by `1 + weight`.)

    Args:
        normalized_shape: Sizes of the last dimensions; an integer for the last one alone.
        eps: Added to the mean square, inside the square root; None for the machine epsilon of the computing
            type.
        elementwise_affine: Whether to learn `weight` (initially one), one value an element of
            `normalized_shape`.
        device: Where the parameter is made.
        dtype: Type of the parameter.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(*, *normalized_shape)`.

    State:
        `weight` of `normalized_shape`, under torch's name: state dicts load both ways.

    Raises:
        RuntimeError: If the input does not end with `normalized_shape`.

    References:
        Zhang and Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019,
        https://arxiv.org/abs/1910.07467
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, device, dtype)
        self._fuse(activation, backend)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Divide the rows of `x` by their root mean square; `residual` is added before the activation."""
        return super().forward(x, residual)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        y, rstd = functional.rms_norm(
            input,
            self.normalized_shape,
            self.weight,
            self.eps,
            activation,
            residual,
            backend=self.backend,
        )
        eps = torch.finfo(computing_type(input.dtype)).eps if self.eps is None else self.eps
        self._keep(input, rstd=rstd, eps=eps)
        return y

    def _seen_as(self) -> watched.Seen:
        return watched.rms_norm, (self.normalized_shape, self.weight, self.eps)
