"""Ghost batch normalization: the noise of small batches in large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from normdoctor.layers import functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend, transformed
from normdoctor.layers.batchnorm import _BatchNorm


class GhostBatchNorm(_BatchNorm):
    r"""Cuts the batch into ghost batches, in its order, and normalizes each by its own statistics.

        x = concatenation of x[1], ..., x[k]                       k = max(1, floor(N / ghost_size))
        y = concatenation of BatchNorm(x[1]), ..., BatchNorm(x[k])

    In training it equals BatchNorm called on one ghost batch after the other: the running statistics move `k`
    times, and `num_batches_tracked` counts `k`. The ghosts differ by at most one sample in size, and none is
    smaller than `ghost_size` unless the batch is. Eval mode is BatchNorm's.

    For batches of a thousand samples and more, whose statistics are too exact to regularize; 16 to 64 samples
    in a ghost are usual.

    Args:
        num_features: Number of channels `C` of the input.
        ghost_size: Number of samples in a ghost batch.
        eps: Added to the variance, inside the square root.
        momentum: Weight of a ghost batch in the running statistics; None for the plain average.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        track_running_stats: Whether to keep running statistics; without them, eval mode takes the ghosts'
            too.
        device: Where parameters and buffers are made.
        dtype: Type of parameters and buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)`.

    State:
        That of BatchNorm; state dicts load both ways. `statistics` are those of the last ghost.

    References:
        Hoffer, Hubara and Soudry, Train longer, generalize better, NeurIPS 2017,
        https://arxiv.org/abs/1705.08741
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int = 32,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device,
            dtype,
            bias=bias,
            activation=activation,
            backend=backend,
        )
        if ghost_size < 1:
            raise ValueError(f"expected a ghost_size of 1 or more, got {ghost_size}")
        self.ghost_size = ghost_size

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        self._check_input_dim(input)
        if not self._takes_statistics():
            return self._by_running_statistics(input, activation, residual)
        backend: Backend = "reference" if transformed(input) else self.backend
        count = max(1, input.shape[0] // self.ghost_size)
        ghosts = input.tensor_split(count)
        residuals = [None] * count if residual is None else residual.tensor_split(count)
        results = []
        for ghost, added in zip(ghosts, residuals, strict=True):
            y, mean, variance = functional.batch_norm(
                ghost, self.weight, self.bias, self.eps, activation, added, backend=backend
            )
            self._take(mean, variance, ghost)
            results.append(y)
        return torch.cat(results) if count > 1 else results[0]

    def _seen_as(self) -> watched.Seen:
        return (watched.unseen, ()) if self._takes_statistics() else super()._seen_as()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"
