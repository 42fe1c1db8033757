"""Weight normalization: length and direction of each filter as parameters of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightNorm(nn.Module):
    r"""Computes a weight from its length `g` and its direction `v`.

        w = g * v / ||v||                     ||v|| over all dimensions but `dim`: one length a filter

    It changes the path of training, not what can be represented, and takes no statistic of activations. The
    lengths have the shape of the weight with 1 in all dimensions but `dim`.

    Args:
        dim: Dimension of the filters (0 for Linear and Conv, 1 for ConvTranspose); None for one length in
            all.

    References:
        Salimans and Kingma, Weight Normalization, NeurIPS 2016, https://arxiv.org/abs/1602.07868
    """

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """The weight."""
        return v * (g / self.length(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight."""
        return self.length(weight), weight

    def length(self, v: Tensor) -> Tensor:
        """The Euclidean lengths of the filters."""
        axes = None if self.dim is None else tuple(d for d in range(v.dim()) if d != self.dim % v.dim())
        # An empty tuple of axes would mean all of them.
        length: Tensor = v.abs() if axes == () else torch.linalg.vector_norm(v, dim=axes, keepdim=bool(axes))
        return length

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"dim={self.dim}"


def weight_norm(module: nn.Module, name: str = "weight", dim: int | None = 0) -> nn.Module:
    """Let `module` learn length and direction of a weight; takes the place of torch's function of that name.

    The state dict holds `parametrizations.<name>.original0` (length) and `original1` (direction), as torch's;
    the older keys `<name>_g` and `<name>_v` load too. `torch.nn.utils.parametrize.remove_parametrizations`
    makes it a plain weight again.

    Args:
        module: Layer with the parameter; it is changed, and returned.
        name: Name of the parameter.
        dim: Dimension of the filters; None for one length in all.

    Example:
        >>> layer = weight_norm(nn.Linear(20, 40))
        >>> layer.parametrizations.weight.original0.shape
        torch.Size([40, 1])
    """
    parametrize.register_parametrization(module, name, WeightNorm(dim), unsafe=True)

    def take_old_keys(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_rest: Any) -> None:
        old = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state_dict for key in old):
            for number, key in enumerate(old):
                state_dict[f"{prefix}parametrizations.{name}.original{number}"] = state_dict.pop(key)

    module.register_load_state_dict_pre_hook(take_old_keys)  # type: ignore[no-untyped-call]
    return module
