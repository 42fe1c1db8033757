"""All statistics of an activation in one read, as a Triton kernel: used on CUDA where Triton is installed.

It computes what `normdoctor.probing.statistics.rows_of` does by torch's own reductions, which read the
activation six to nine times. The interpreter of Triton runs it on a CPU (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")

#: Values of a tile, and about how many programs are started.
_TILE = 1024
_PROGRAMS = 512
#: What a program keeps of a unit: count, mean, m2, minimum, maximum, active, low, high, level.
_KEPT = 9

#: Formats whose values and sums are held in float32.
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: The most dimensions beside that of the units.
DIMENSIONS = 3


# Functions of Triton are not annotated: its compiler looks up the names in annotations.
def _stored(place, units, inside, first, second, third):  # type: ignore[no-untyped-def]
    """Three rows of the result."""
    tl.store(place, first, mask=inside)
    tl.store(place + units, second, mask=inside)
    tl.store(place + 2 * units, third, mask=inside)


_keep: Any = triton.jit(_stored)


def _tiles(  # type: ignore[no-untyped-def]
    values,
    out,
    units,
    n,
    size1,
    size2,
    stride0,
    stride1,
    stride2,
    stride_unit,
    low,
    high,
    middle,
    tiles: tl.constexpr,
    tall: tl.constexpr,
    broad: tl.constexpr,
):
    """One program: `broad` units, and a share of their `n` observations, in tiles of `tall` of them.

    Tiles are merged by the formula of Chan, Golub and LeVeque, as batches are. Means are kept relative to the
    first value of a unit, so that a mean far from zero costs no digits.
    """
    unit = tl.program_id(0) * broad + tl.arange(0, broad)
    inside = unit < units
    start = tl.program_id(1) * tiles * tall
    pivot = tl.load(values + unit.to(tl.int64) * stride_unit, mask=inside, other=0.0).to(tl.float32)
    count = tl.zeros([broad], tl.float32)
    mean = tl.zeros([broad], tl.float32)
    m2 = tl.zeros([broad], tl.float32)
    least = tl.full([broad], float("inf"), tl.float32)
    most = tl.full([broad], float("-inf"), tl.float32)
    active = tl.zeros([broad], tl.float32)
    below = tl.zeros([broad], tl.float32)
    above = tl.zeros([broad], tl.float32)
    level = tl.zeros([broad], tl.float32)
    for tile in range(tiles):
        row = start + tile * tall + tl.arange(0, tall)
        seen = (row < n)[:, None] & inside[None, :]
        wide = row.to(tl.int64)
        offset = (wide // (size1 * size2)) * stride0 + (wide // size2 % size1) * stride1
        offset = offset + wide % size2 * stride2
        place = offset[:, None] + (unit.to(tl.int64) * stride_unit)[None, :]
        x = tl.load(values + place, mask=seen, other=0.0).to(tl.float32)
        here = tl.sum(seen.to(tl.float32), 0)
        shifted = tl.where(seen, x - pivot[None, :], 0.0)
        centre = tl.sum(shifted, 0) / tl.maximum(here, 1.0)
        apart = tl.where(seen, shifted - centre[None, :], 0.0)
        total = count + here
        part = here / tl.maximum(total, 1.0)
        delta = centre - mean
        m2 = m2 + tl.sum(apart * apart, 0) + delta * delta * count * part
        mean = mean + delta * part
        count = total
        least = tl.minimum(least, tl.min(tl.where(seen, x, float("inf")), 0))
        most = tl.maximum(most, tl.max(tl.where(seen, x, float("-inf")), 0))
        active = active + tl.sum((seen & (x > 0)).to(tl.float32), 0)
        below = below + tl.sum((seen & (x <= low)).to(tl.float32), 0)
        above = above + tl.sum((seen & (x >= high)).to(tl.float32), 0)
        level = level + tl.sum(tl.where(seen, tl.abs(x - middle), 0.0), 0)
    place = out + tl.program_id(1) * 9 * units + unit
    _keep(place, units, inside, count, mean, m2)
    _keep(place + 3 * units, units, inside, least, most, active)
    _keep(place + 6 * units, units, inside, below, above, level)


_KERNEL: Any = triton.jit(_tiles)


def usable(values: Tensor) -> bool:
    """Can the kernel read this tensor as it lies?"""
    return values.dtype in DTYPES and 0 < values.dim() <= DIMENSIONS + 1 and values.numel() > 0


def totals(
    values: Tensor, axis: int, bounds: tuple[float, float] | None, span: tuple[float, float] | None
) -> tuple[Tensor, ...]:
    """Of each unit mean, sum of squared deviations, minimum, maximum, active, low, high and level.

    All of shape (units,) in float64, sums over the observations of a unit; see `rows_of` for the arguments.
    """
    lying = values.detach().movedim(axis, -1)
    while lying.dim() <= DIMENSIONS:
        lying = lying.unsqueeze(0)
    sizes, strides = lying.shape, lying.stride()
    units, n = sizes[-1], math.prod(sizes[:-1])
    broad = min(32, triton.next_power_of_2(units)) if strides[-1] == 1 else 1
    tall = _TILE // broad
    blocks = triton.cdiv(units, broad)
    # A power of two, so that few variants are compiled.
    tiles = triton.next_power_of_2(triton.cdiv(triton.cdiv(n, tall), max(1, _PROGRAMS // blocks)))
    parts = triton.cdiv(n, tiles * tall)
    out = torch.empty(parts, _KEPT, units, dtype=torch.float32, device=values.device)
    low, high = bounds or (-math.inf, math.inf)
    middle = (span[0] + span[1]) / 2 if span else 0.0
    given = (lying, out, units, n, sizes[1], sizes[2], *strides, low, high, middle)
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        _KERNEL[(blocks, parts)](*given, tiles=tiles, tall=tall, broad=broad)
    count, mean, m2, least, most, *sums = out.double().unbind(1)
    pooled = (count * mean).sum(0) / n
    m2 = (m2 + count * (mean - pooled) ** 2).sum(0)
    active, below, above, level = (one.sum(0) for one in sums)
    level = level * (2 / (span[1] - span[0])) if span else torch.zeros_like(level)
    pooled = pooled + lying[0, 0, 0].double()
    return pooled, m2, least.amin(0), most.amax(0), active, below, above, level
