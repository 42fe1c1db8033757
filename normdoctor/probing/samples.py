"""A bounded sample of the entries of many tensors, as rows of one matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: The most entries of one tensor, and of all tensors together. Each is a cache miss, so they are what a look
#: at the gradients costs; of 400 entries the root mean square is known to 4 % (1/sqrt(2 n)).
WIDTH = 1024
ENTRIES = 2**16


def local(tensor: Tensor) -> Tensor:
    """The part of a distributed tensor that lies here; any other tensor itself, without its history."""
    to_local = getattr(tensor, "to_local", None)
    found: Tensor = to_local() if to_local is not None else tensor
    return found.detach()


def width_for(count: int) -> int:
    """How many entries each of `count` tensors may give."""
    return max(16, min(WIDTH, ENTRIES // max(count, 1)))


def stride_for(elements: int, width: int) -> int:
    """The distance of sampled entries; odd, so that it does not stay in few columns of a matrix."""
    return 1 if elements <= width else (elements // width) | 1


def strided(tensor: Tensor, width: int) -> Tensor:
    """At most `width` entries, evenly over memory; a view where the tensor fills its memory.

    Of complex numbers both parts are entries.
    """
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    elements = tensor.numel()
    stride = stride_for(elements, width)
    count = min(width, -(-elements // stride))
    if dense(tensor):
        return tensor.as_strided((count,), (stride,), tensor.storage_offset())
    return tensor.reshape(-1)[::stride][:count]


def dense(tensor: Tensor) -> bool:
    """Does it fill one piece of memory without holes, in a usual order of its axes?"""
    if tensor.is_contiguous():
        return True
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    form = formats.get(tensor.dim())
    if form is not None and tensor.is_contiguous(memory_format=form):
        return True
    return tensor.dim() == 2 and tensor.t().is_contiguous()


def aligned(gradient: Tensor, like: Tensor) -> Tensor:
    """A gradient laid out in memory as its parameter is, so that samples of both are of the same entries."""
    if gradient.stride() == like.stride() or gradient.numel() <= 1:
        return gradient
    return torch.empty_like(like, dtype=gradient.dtype).copy_(gradient)


def fill(rows: Sequence[Tensor], samples: Sequence[Tensor]) -> None:
    """Write samples into rows of a matrix; each row is as long as its sample or longer."""
    if rows:
        counts = [one.numel() for one in samples]
        parts = [row if row.numel() == n else row[:n] for row, n in zip(rows, counts, strict=True)]
        torch._foreach_copy_(parts, list(samples))
