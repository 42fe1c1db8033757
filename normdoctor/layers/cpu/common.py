"""What the compositions share: pieces that stay in the cache, and layouts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from normdoctor.layers.reference import computing_type

#: Values that one core works on before it goes on: measured on 1.25 MiB of second-level cache a core.
PIECE = 1 << 17


def piece(width: int) -> int:
    """How many rows of this width the caches of all cores hold together."""
    return max(1, PIECE * torch.get_num_threads() // max(width, 1))


def split(values: Tensor, height: int) -> tuple[Tensor, ...]:
    """The tensor in parts of `height` rows."""
    return values.split(height)  # type: ignore[no-untyped-call, no-any-return]


def like(grad: Tensor, x: Tensor) -> Tensor:
    """A gradient in the memory format of a channels_last input."""
    memory_format = channels_last(x)
    assert memory_format is not None
    return grad.contiguous(memory_format=memory_format)


def pieces(height: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in parts of `height` rows; as they are if that is all of them."""
    if len(tensors[0]) <= height:
        return iter([tensors])
    return zip(*(split(one, height) for one in tensors), strict=True)


def needs_graph(*tensors: Tensor | None) -> bool:
    """Will anybody ask for a gradient?"""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


def channels_last(x: Tensor) -> torch.memory_format | None:
    """The memory format of a dense input whose channels lie next to each other, and not also otherwise."""
    for dims, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if x.dim() == dims and x.is_contiguous(memory_format=memory_format) and not x.is_contiguous():
            return memory_format
    return None


def wide(values: Tensor | None, x: Tensor) -> Tensor | None:
    """A parameter in the type in which `x` is normalized."""
    return None if values is None else values.to(computing_type(x.dtype))


def far(mean: Tensor, rstd: Tensor, limit: float) -> bool:
    """Is the mean more than `limit` times the standard deviation anywhere?"""
    # In three calls, since small inputs pay for each.
    return float(torch.linalg.vector_norm(mean * rstd, torch.inf)) > limit
