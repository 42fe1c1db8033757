"""Refuses what torch's layers refuse, with their types of error, whichever backend is to compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normdoctor.layers.reference import HALF


def floating(x: Tensor) -> None:
    """Refuse integers and complex numbers."""
    if not x.is_floating_point():
        raise NotImplementedError(f"expected an input of a floating-point type, got {x.dtype}")


def training_batch(x: Tensor, eps: float) -> None:
    """Refuse a batch that has no variance: one value a channel."""
    if x.dim() < 2:
        raise ValueError(f"expected an input of 2 or more dimensions (N, C, *), got {x.dim()}")
    if x.shape[0] * x.shape[2:].numel() == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    if eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    floating(x)


def groups(x: Tensor, num_groups: int) -> None:
    """Refuse channels that cannot be split, and a batch of one value a group."""
    if x.dim() < 2:
        raise RuntimeError(f"expected an input of 2 or more dimensions (N, C, *), got {x.dim()}")
    if x.shape[0] * x.shape[1] // num_groups * x.shape[2:].numel() == 1:
        raise ValueError(f"expected more than one value a group, got an input of shape {tuple(x.shape)}")
    floating(x)
    if x.shape[1] % num_groups != 0:
        raise RuntimeError(
            f"expected a number of channels divisible by {num_groups} groups, got {x.shape[1]}"
        )


def positions(x: Tensor) -> None:
    """Refuse channels of one value, of which nothing would be left."""
    if x.shape[2:].numel() == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {x.shape}")


def rows(
    x: Tensor, normalized_shape: Sequence[int], *, mixed: bool = False, **parameters: Tensor | None
) -> None:
    """Refuse an input whose last dimensions are not of the normalized shape.

    `mixed` allows parameters of any type, as RMSNorm does.
    """
    shape = tuple(normalized_shape)
    if not shape:
        raise RuntimeError("Expected normalized_shape to be at least 1-dimensional, got ()")
    if x.shape[-len(shape) :] != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size {list(x.shape)}"
        )
    floating(x)
    dtype = x.dtype
    for name, value in parameters.items():
        if value is None:
            continue
        if value.shape != shape:
            raise RuntimeError(f"expected {name} of normalized_shape {list(shape)}, got {list(value.shape)}")
        if value.dtype is not dtype and not mixed:
            _type(name, value, x)


def per_channel(x: Tensor, **vectors: Tensor | None) -> None:
    """Refuse parameters and running statistics that are not one value a channel, or of an unfit type."""
    shape, dtype = (x.shape[1],), x.dtype
    for name, value in vectors.items():
        if value is None:
            continue
        if value.shape != shape:
            raise RuntimeError(
                f"{name} should contain {shape[0]} elements, one a channel, not {value.numel()}"
            )
        if value.dtype is not dtype:
            _type(name, value, x)


def residual(x: Tensor, value: Tensor | None) -> None:
    """Refuse a residual that would have to be broadcast: the shape of `y` is that of `x`."""
    if value is not None and value.shape != x.shape:
        raise ValueError(
            f"expected a residual of the input's shape {tuple(x.shape)}, got {tuple(value.shape)}"
        )


def _type(name: str, value: Tensor, x: Tensor) -> None:
    """Parameters are of the input's type, or float32 for a half input."""
    if not (x.dtype in HALF and value.dtype == torch.float32):
        raise RuntimeError(f"mixed dtype: {name} of {value.dtype} does not go with an input of {x.dtype}")
