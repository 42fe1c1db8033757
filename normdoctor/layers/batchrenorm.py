"""Batch renormalization: training that looks at the running statistics too."""

from __future__ import annotations

import torch
from torch import Tensor

from normdoctor.layers import functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend, transformed
from normdoctor.layers.batchnorm import _BatchNorm


class BatchRenorm(_BatchNorm):
    r"""Corrects the statistics of a batch towards the running ones, so that training and eval mode agree.

    With `mean` and `var` of the batch, as in BatchNorm, and `s = sqrt(var + eps)`,

        r = clip(s / sqrt(running_var + eps), 1 / rmax, rmax)                 no gradient through r
        d = clip((mean - running_mean) / sqrt(running_var + eps), -dmax, dmax)     nor through d
        y = activation(((x - mean) / s * r + d) * weight + bias + residual)

    Without the limits this is what eval mode computes. For small or unlike batches (2 to 8 samples, or all of
    one class). Start with `rmax = 1` and `dmax = 0`, which is BatchNorm, for as long as the running
    statistics are young (5000 steps in the paper), then raise both step by step to 3 and 5: they are plain
    attributes, which may be set at any time.

    Under activation checkpointing the second forward of a step sees running statistics that have moved: do
    not checkpoint this layer.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the variances, inside the square roots.
        momentum: Weight of the new batch in the running statistics; the paper takes 0.01.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        rmax: Largest correction of the scale, 1 or more.
        dmax: Largest correction of the mean, in standard deviations, 0 or more.
        device: Where parameters and buffers are made.
        dtype: Type of parameters and buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)`.

    State:
        That of BatchNorm; state dicts load both ways, and eval mode is BatchNorm's.

    References:
        Ioffe, Batch Renormalization, NeurIPS 2017, https://arxiv.org/abs/1702.03275
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        rmax: float = 3.0,
        dmax: float = 5.0,
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
            device=device,
            dtype=dtype,
            bias=bias,
            activation=activation,
            backend=backend,
        )
        if rmax < 1.0 or dmax < 0.0:
            raise ValueError(f"expected rmax >= 1 and dmax >= 0, got rmax={rmax} and dmax={dmax}")
        self.rmax = rmax
        self.dmax = dmax

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return self._by_running_statistics(input, activation, residual)
        backend: Backend = "reference" if transformed(input) else self.backend
        normalized, mean, variance = functional.batch_norm(input, eps=self.eps, backend=backend)
        assert mean is not None
        assert variance is not None
        # Without `detach`, torch's compiler computes both again for the backward pass, from running
        # statistics that have moved.
        scale, shift = (value.detach() for value in self._correction(mean, variance))
        if self.weight is not None:
            scale, shift = scale * self.weight, shift * self.weight
        if self.bias is not None:
            shift = shift + self.bias
        self._take(mean, variance, input)
        return functional.channel_affine(normalized, scale, shift, activation, residual, backend=self.backend)

    @torch.no_grad()
    def _correction(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """The factor and the shift that lead from the batch's statistics to the running ones."""
        deviation = torch.sqrt(self.running_var.to(mean.dtype) + self.eps)
        r = (torch.sqrt(variance + self.eps) / deviation).clamp(1 / self.rmax, self.rmax)
        d = ((mean - self.running_mean.to(mean.dtype)) / deviation).clamp(-self.dmax, self.dmax)
        return r, d

    def _seen_as(self) -> watched.Seen:
        return (watched.unseen, ()) if self.training else super()._seen_as()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, rmax={self.rmax}, dmax={self.dmax}"
