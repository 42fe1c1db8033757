"""The statistics that a layer used last, kept for whoever wants to look at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normdoctor.layers.reference import HALF, computing_type


class Request:
    """What a probe leaves at a layer that it watches, and what BatchNorm hands over; see `watched`.

    Attributes:
        by_samples: Whether a BatchNorm is to merge the statistics of the batch from those of its samples.
            Without, it computes as if nobody watched, to the last bit.
        whole: Mean and biased variance of each channel of the batch, of shape `(C,)`.
        samples: The same of each sample, of shape `(N, C)`, in the place of `whole`, where they were asked
            for.
    """

    __slots__ = ("by_samples", "samples", "whole")

    def __init__(self, *, by_samples: bool) -> None:
        self.by_samples = by_samples
        self.whole: tuple[Tensor | None, Tensor | None] | None = None
        self.samples: tuple[Tensor, Tensor] | None = None


class BatchStatistics:
    """Mean and variance of the last input that a layer took statistics of.

    They are what the layer computed anyway: nothing is read a second time, no graph is kept alive, and
    nothing of it enters the state dict, a copy or a pickle of the layer. All values are None before the first
    forward, and stay as they are where none are taken: in eval mode of BatchNorm, for an empty input, and in
    compiled, exported or otherwise transformed calls.

    `request` is a probe's, for the time of a forward.
    """

    __slots__ = ("_eps", "_mean", "_mean_square", "_rstd", "_shape", "_variance", "request")

    def __init__(self) -> None:
        self.request: Request | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._mean: Tensor | None = None
        self._shape: tuple[torch.Size, tuple[int, ...]] | None = None
        self._variance: Tensor | None = None
        self._mean_square: Tensor | None = None
        self._rstd: Tensor | None = None
        self._eps = 0.0

    def keep(
        self,
        mean: Tensor | None = None,
        variance: Tensor | None = None,
        *,
        mean_square: Tensor | None = None,
        rstd: Tensor | None = None,
        eps: float = 0.0,
    ) -> None:
        """Take the mean and the biased variance, or `rstd = 1 / sqrt(variance + eps)`.

        Of a layer that takes no mean, the mean square stands in the place of the variance.
        """
        self._mean, self._variance, self._mean_square = mean, variance, mean_square
        self._rstd, self._eps, self._shape = rstd, eps, None

    def keep_rows(
        self, mean: Tensor, rstd: Tensor, eps: float, size: torch.Size, normalized_shape: tuple[int, ...]
    ) -> None:
        """What LayerNorm's kernel gave for an input of a size; it gets its shape when somebody looks."""
        self._mean, self._rstd, self._eps, self._shape = mean, rstd, eps, (size, normalized_shape)
        self._variance = self._mean_square = None

    @property
    def mean(self) -> Tensor | None:
        """The mean; of a layer that takes none, None."""
        self._settle()
        return self._mean

    def _settle(self) -> None:
        """Bring what a kernel gave into its shape, and into float32 where it is of a half type."""
        mean, rstd = self._mean, self._rstd
        if mean is None or rstd is None or (self._shape is None and mean.dtype not in HALF):
            return
        shape = mean.shape
        if self._shape is not None:
            size, normalized_shape = self._shape
            shape, self._shape = size[: len(size) - len(normalized_shape)], None
        wide = computing_type(mean.dtype)
        self._mean, self._rstd = mean.to(wide).view(shape), rstd.to(wide).view(shape)

    @property
    def var(self) -> Tensor | None:
        """The biased variance; of a layer that takes no mean, None."""
        if self._variance is not None or self.mean is None:
            return self._variance
        return self._squares()

    @property
    def mean_square(self) -> Tensor | None:
        """The mean of the squares: of RMSNorm the only statistic."""
        if self.mean is None:
            return self._squares() if self._mean_square is None else self._mean_square
        variance = self.var
        return None if variance is None else variance + self.mean.square()

    def _squares(self) -> Tensor | None:
        self._settle()
        return None if self._rstd is None else (self._rstd.pow(-2) - self._eps).clamp_min(0)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts empty."""
        return BatchStatistics, ()

    def __repr__(self) -> str:
        shape = None if self.mean_square is None else tuple(self.mean_square.shape)
        return f"BatchStatistics({'empty' if shape is None else f'shape={shape}'})"
