"""Layer normalization that takes the place of `torch.nn.LayerNorm` one for one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normdoctor.layers import direct, functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.fused import Norm


class LayerNorm(Norm, nn.LayerNorm):
    r"""Normalizes the last dimensions of each sample at each position.

    With `A(r)` the set of all `n` values of one row `r`: the last dimensions, which are of
    `normalized_shape`, for one index of all others,

        mean[r] = sum(x over A(r)) / n
        var[r]  = sum((x - mean[r])**2 over A(r)) / n
        y       = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)

    Train and eval mode are alike, and no statistic is taken over the batch. Statistics and the affine map are
    computed in float32 for float16 and bfloat16 inputs. The values of `eps` in use differ: 1e-5 here and in
    torch, 1e-6 in vision transformers and ConvNeXt, 1e-12 in BERT; a checkpoint needs its own.

    Args:
        normalized_shape: Sizes of the last dimensions; an integer for the last one alone.
        eps: Added to the variance, inside the square root.
        elementwise_affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value
            an element of `normalized_shape`.
        bias: Whether an affine layer has a bias.
        device: Where the parameters are made.
        dtype: Type of the parameters.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(*, *normalized_shape)`.

    State:
        `weight` and `bias` of `normalized_shape`, under torch's names: state dicts load both ways.

    Raises:
        RuntimeError: If the input does not end with `normalized_shape`, or its type does not go with the
            parameters.

    References:
        Ba, Kiros and Hinton, Layer Normalization, 2016, https://arxiv.org/abs/1607.06450
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        self._fuse(activation, backend)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        y, mean, rstd = functional.layer_norm(
            input,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            activation,
            residual,
            backend=self.backend,
        )
        self._keep(input, mean, rstd=rstd, eps=self.eps)
        return y

    _direct = direct.layer_norm

    def _seen_as(self) -> watched.Seen:
        return watched.layer_norm, (self.normalized_shape, self.weight, self.bias, self.eps)
