"""Filter response normalization with its thresholded linear unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normdoctor.layers import verify
from normdoctor.layers.fused import Fused
from normdoctor.layers.reference import along_channels, computing_type
from normdoctor.layers.symbolic import leaf, traced


class FilterResponseNorm(Fused):
    r"""Divides each channel of each sample by the root mean square of its positions; no mean is taken off.

    With the `n` values of channel `c` of sample `i`,

        nu2[i, c] = sum(x**2 over positions) / n
        z         = x / sqrt(nu2 + |eps|) * weight + bias
        y         = max(z, tau)                                   the thresholded linear unit (TLU)

    The TLU belongs to it: without a mean taken off, a ReLU would meet values far from zero. No statistic is
    taken over the batch. Where there is a single position, `x / sqrt(x**2 + eps)` is hardly more than a sign:
    then let `eps` be learnt, which starts at 1e-4.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the mean square, inside the square root.
        learnable_eps: Whether to add the absolute value of a learnt number, one a channel.
        tlu: Whether the layer ends with the TLU, whose threshold `tau` is learnt.
        device: Where the parameters are made.
        dtype: Type of the parameters.

    Shape:
        Input and output `(N, C, *)` with one further dimension or more.

    State:
        `weight` (initially one), `bias` and `tau` (initially zero), `eps_l`, of shape `(C,)`: as timm's
        FilterResponseNormTlu2d has the first three.

    References:
        Singh and Krishnan, Filter Response Normalization Layer, CVPR 2020, https://arxiv.org/abs/1911.09737
    """

    weight: nn.Parameter
    bias: nn.Parameter
    tau: nn.Parameter | None
    eps_l: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        learnable_eps: bool = False,
        tlu: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.learnable_eps = learnable_eps
        self.tlu = tlu
        for name, wanted in (("weight", True), ("bias", True), ("tau", tlu), ("eps_l", learnable_eps)):
            empty = torch.empty(num_features, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if empty is None else nn.Parameter(empty))
        self._fuse(None, "auto")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one, shift and threshold to zero, and a learnt eps to 1e-4."""
        starts = ((self.weight, 1.0), (self.bias, 0.0), (self.tau, 0.0), (self.eps_l, 1e-4))
        for parameter, value in starts:
            if parameter is not None:
                nn.init.constant_(parameter, value)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `input` of shape `(N, C, *)`."""
        if traced(input):
            return leaf(self, input)
        if input.dim() < 3:
            raise ValueError(f"expected 3D or higher input (N, C, *) (got {input.dim()}D input)")
        verify.floating(input)
        verify.per_channel(input, weight=self.weight, bias=self.bias, tau=self.tau, eps_l=self.eps_l)
        wide = input.to(computing_type(input.dtype))
        mean_square = wide.square().mean(tuple(range(2, input.dim())), keepdim=True)
        eps: float | Tensor = self.eps
        if self.eps_l is not None:
            eps = self.eps + self._spread(self.eps_l, input).abs()
        y = wide / torch.sqrt(mean_square + eps) * self._spread(self.weight, input)
        y = y + self._spread(self.bias, input)
        if self.tau is not None:
            y = torch.maximum(y, self._spread(self.tau, input))
        self._keep(input, mean_square=mean_square.detach().flatten(1))
        return y.to(input.dtype)

    @staticmethod
    def _spread(value: Tensor, input: Tensor) -> Tensor:
        return along_channels(value.to(computing_type(input.dtype)), input)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.num_features}, eps={self.eps}, learnable_eps={self.learnable_eps}, tlu={self.tlu}"
