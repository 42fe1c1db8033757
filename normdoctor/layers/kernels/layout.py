"""How a tensor lies in memory, and how programs share it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Values of a tile, and about how many programs are started: eight for each multiprocessor of an H100.
TILE = 4096
PROGRAMS = 1024
#: The most blocks of the second and third dimension of a grid.
GRID = 65535


class Slabs(NamedTuple):
    """A dense input (N, C, *) as `samples` times `batches` times (channels, length), and its tiles."""

    samples: int
    batches: int
    channels: int
    length: int
    strides: tuple[int, int, int]
    tall: int
    broad: int
    tiles: int
    grid: tuple[int, int, int]

    @property
    def parts(self) -> int:
        """Into how many shares the positions of a sample are split."""
        return self.grid[1]


def channels_lie_last(x: Tensor) -> bool:
    """Do the channels of a position lie next to each other?"""
    return x.shape[2:].numel() == 1 or (not x.is_contiguous() and x.movedim(1, -1).is_contiguous())


def dense(values: Tensor, last: bool) -> Tensor:
    """The values without gaps, with the channels last or not; a copy only if they lie otherwise."""
    return values.movedim(1, -1).contiguous().movedim(-1, 1) if last else values.contiguous()


def power(n: int) -> int:
    """The least power of two that is not below `n`."""
    return 1 << max(n - 1, 0).bit_length()


def slabs(x: Tensor, last: bool, across: bool) -> Slabs:
    """How a dense input is shared; `across` takes all samples together, as BatchNorm does."""
    samples, channels = x.shape[:2]
    length = x.shape[2:].numel()
    batches = 1
    if across and last:
        samples, length = 1, samples * length
    elif across:
        samples, batches = 1, samples
    if last:
        strides = (channels * length, 1, channels)
        broad = min(128, power(channels))
        tall = min(power(length), TILE // broad)
    else:
        strides = (channels * length, length, 1)
        tall = min(power(length), TILE)
        broad = min(power(channels), TILE // tall)
    blocks = -(-channels // broad)
    count = -(-length // tall) * batches
    # A sample is split only as far as there are not enough programs without.
    parts = max(1, min(count, PROGRAMS // (blocks * samples)))
    tiles = -(-count // parts)
    grid = (blocks, -(-count // tiles), samples)
    return Slabs(samples, batches, channels, length, strides, tall, broad, tiles, grid)


class Rows(NamedTuple):
    """An input of rows, its tiles, and how many programs go through them backward."""

    number: int
    width: int
    tall: int
    broad: int
    warps: int
    programs: int
    tiles: int


def rows(x: Tensor, width: int) -> Rows:
    """How rows of a dense input are shared."""
    count = x.numel() // width
    broad = power(width)
    tall = max(1, min(power(count), 2048 // broad))
    warps = min(16, max(4, broad * tall // 512))
    blocks = -(-count // tall)
    tiles = -(-blocks // min(blocks, 4 * processors(x)))
    return Rows(count, width, tall, broad, warps, -(-blocks // tiles), tiles)


def processors(x: Tensor) -> int:
    """Multiprocessors of the device; two where the kernels are interpreted."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
