"""What all own layers share: the activation they end with, the backend, the statistics they keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normdoctor.layers import activations, backends, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.batchstatistics import BatchStatistics
from normdoctor.layers.symbolic import leaf, traced


class Fused(nn.Module):
    """Base of the own layers, beside torch's class of the same name where there is one.

    Attributes:
        activation: Name of the activation that the layer ends with, or None.
        backend: What computes it (see `normdoctor.layers.use_backend`).
        statistics: What the layer normalized by last.
    """

    activation: Activation | None
    backend: Backend
    statistics: BatchStatistics

    def _fuse(self, activation: str | None, backend: str) -> None:
        """Verify and set what the constructor was given besides torch's own arguments."""
        self.activation = activations.known(activation)
        self.backend = backends.known(backend)
        self.statistics = BatchStatistics()

    def _keep(
        self,
        input: Tensor,
        mean: Tensor | None = None,
        variance: Tensor | None = None,
        *,
        mean_square: Tensor | None = None,
        rstd: Tensor | None = None,
        eps: float = 0.0,
    ) -> None:
        """Keep what was found in an input, where it is of use to anybody (see `BatchStatistics`)."""
        known = mean is not None or rstd is not None or variance is not None or mean_square is not None
        if known and input.numel() > 0 and not backends.transformed(input):
            self.statistics.keep(mean, variance, mean_square=mean_square, rstd=rstd, eps=eps)

    def extra_repr(self) -> str:
        """The settings as torch shows them, then those of our own that are not the default."""
        parts = [super().extra_repr()]
        if self.activation is not None:
            parts.append(f"activation={self.activation!r}")
        if self.backend != "auto":
            parts.append(f"backend={self.backend!r}")
        return ", ".join(part for part in parts if part)


class Norm(Fused):
    """Base of those that can end with an activation and take a residual."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input`; `residual`, of its shape, is added before the activation."""
        if type(input) is not Tensor or torch._C._is_torch_function_mode_enabled():
            if traced(input):
                return leaf(self, input, residual)
            if watched.asked(self, input):
                return watched.shown(self, input, residual)
        elif residual is None and self.backend == "auto" and (y := self._direct(input)) is not None:
            return y if self.activation is None else activations.activate(y, self.activation)
        return self._normalize(input, self.activation, residual)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """What the layer computes, with the activation and the residual that are asked for here."""
        raise NotImplementedError

    def _direct(self, input: Tensor, /) -> Tensor | None:
        """The output without an activation, where there is a shorter way to it (see `direct`)."""
        return None

    def _seen_as(self) -> watched.Seen:
        """What a probe sees of it."""
        return watched.unseen, ()
