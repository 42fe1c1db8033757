"""Kernels of the norms of (N, C, L): BatchNorm, GroupNorm, InstanceNorm and the affine map of a channel.

A norm takes its statistics over slabs: the groups of channels of one sample, or for BatchNorm one channel of
all samples, which is the case of one sample that holds the whole batch. A program takes `broad` channels and
a share of their positions, in tiles of `tall` of them, so that a large slab keeps the whole device busy.
Shares are merged by the formula of Chan, Golub and LeVeque in a fixed order: results are the same in every
run. The second pass goes backwards, since the last that was read is what the cache still holds.

Offsets are of 64 bits between tiles and of 32 bits within one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from normdoctor.layers.kernels.pointwise import activate, slope

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")


def _locate(  # type: ignore[no-untyped-def]
    index,
    sample,
    block,
    batches,
    length,
    stride_n,
    stride_c,
    stride_l,
    tall: tl.constexpr,
    broad: tl.constexpr,
):
    """Offset of the first value of a tile, and how many positions it holds; none if there is no such tile."""
    per = (length + tall - 1) // tall
    first = (index % per) * tall
    offset = (sample * batches + index // per).to(tl.int64) * stride_n + first.to(tl.int64) * stride_l
    left = tl.where(index < per * batches, length - first, 0)
    return offset + (block * broad).to(tl.int64) * stride_c, tl.where(index < 0, 0, left)


_place: Any = triton.jit(_locate)


def _moments(  # type: ignore[no-untyped-def]
    x,
    out,
    channels,
    length,
    batches,
    tiles,
    stride_n,
    stride_c,
    stride_l,
    tall: tl.constexpr,
    broad: tl.constexpr,
):
    """Count, mean and sum of squared deviations of each channel in one share of its positions."""
    block = tl.program_id(0)
    sample = tl.program_id(2)
    column = tl.arange(0, broad)
    inside = block * broad + column < channels
    row = tl.arange(0, tall)
    begin = x + (sample * batches).to(tl.int64) * stride_n + (block * broad).to(tl.int64) * stride_c
    # Means are kept relative to the first value, so that one far from zero costs no digits.
    pivot = tl.load(begin + column * stride_c, mask=inside, other=0.0).to(tl.float32)
    mean = tl.zeros([broad], tl.float32)
    m2 = tl.zeros([broad], tl.float32)
    count = tl.zeros([broad], tl.float32)
    for tile in range(tiles):
        index = tl.program_id(1) * tiles + tile
        offset, left = _place(
            index, sample, block, batches, length, stride_n, stride_c, stride_l, tall, broad
        )
        seen = row < left
        taken = inside[:, None] & seen[None, :]
        place = x + offset + (column[:, None] * stride_c + row[None, :] * stride_l)
        values = tl.load(place, mask=taken, other=0.0).to(tl.float32)
        here = tl.sum(seen.to(tl.float32), 0)
        shifted = tl.where(taken, values - pivot[:, None], 0.0)
        centre = tl.sum(shifted, 1) / tl.maximum(here, 1.0)
        apart = tl.where(taken, shifted - centre[:, None], 0.0)
        delta = centre - mean
        part = here / tl.maximum(count + here, 1.0)
        m2 += tl.sum(apart * apart, 1) + delta * delta * count * part
        mean += delta * part
        count += here
    share = sample * tl.num_programs(1) + tl.program_id(1)
    place = out + share.to(tl.int64) * 3 * channels + block * broad + column
    tl.store(place, count, mask=inside)
    tl.store(place + channels, mean + pivot, mask=inside)
    tl.store(place + 2 * channels, m2, mask=inside)


def _merge(shares, out, channels, width, parts, eps, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean, biased variance and `1 / sqrt(variance + eps)` of a slab of `width` channels."""
    group = tl.program_id(0)
    sample = tl.program_id(1)
    slabs = tl.num_programs(0) * tl.num_programs(1)
    begin = shares + (sample * parts).to(tl.int64) * 3 * channels + group * width
    pivot = tl.load(begin + channels)
    lane = tl.arange(0, block)
    total = tl.zeros([block], tl.float32)
    first = tl.zeros([block], tl.float32)
    for start in range(0, parts * width, block):
        k = start + lane
        place = begin + (k // width) * 3 * channels + k % width
        count = tl.load(place, mask=k < parts * width, other=0.0)
        mean = tl.load(place + channels, mask=k < parts * width, other=0.0)
        total += count
        first += tl.where(count > 0, count * (mean - pivot), 0.0)
    n = tl.sum(total, 0)
    apart = tl.sum(first, 0) / n
    second = tl.zeros([block], tl.float32)
    for start in range(0, parts * width, block):
        k = start + lane
        place = begin + (k // width) * 3 * channels + k % width
        count = tl.load(place, mask=k < parts * width, other=0.0)
        mean = tl.load(place + channels, mask=k < parts * width, other=0.0)
        m2 = tl.load(place + 2 * channels, mask=k < parts * width, other=0.0)
        delta = mean - pivot - apart
        second += tl.where(count > 0, m2 + count * delta * delta, 0.0)
    variance = tl.sum(second, 0) / n
    place = out + sample * tl.num_programs(0) + group
    tl.store(place, pivot + apart)
    tl.store(place + slabs, variance)
    tl.store(place + 2 * slabs, 1.0 / tl.sqrt_rn(variance + eps))


def _factors(  # type: ignore[no-untyped-def]
    statistics, weight, bias, sample, samples, channel, inside, width, groups
):
    """Mean, `rstd`, weight and bias of channels; 0 and 1 for statistics that are None."""
    mean = tl.zeros_like(channel).to(tl.float32)
    rstd = mean + 1.0
    scale = mean + 1.0
    shift = mean
    if statistics is not None:
        place = statistics + sample * groups + channel // width
        mean = tl.load(place, mask=inside, other=0.0)
        rstd = tl.load(place + 2 * samples * groups, mask=inside, other=0.0)
    if weight is not None:
        scale = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    return mean, rstd, scale, shift


_read: Any = triton.jit(_factors)


def _apply(  # type: ignore[no-untyped-def]
    x, y, residual, statistics, weight, bias, channels, length, batches, tiles, width,
    stride_n, stride_c, stride_l, kind: tl.constexpr, tall: tl.constexpr, broad: tl.constexpr,
):  # fmt: skip
    """`y = activation((x - mean) * rstd * weight + bias + residual)`."""
    block = tl.program_id(0)
    samples = tl.num_programs(2)
    sample = samples - 1 - tl.program_id(2)
    column = tl.arange(0, broad)
    channel = block * broad + column
    inside = channel < channels
    row = tl.arange(0, tall)
    last = (length + tall - 1) // tall * batches - 1
    mean, rstd, scale, shift = _read(
        statistics, weight, bias, sample, samples, channel, inside, width, channels // width
    )
    scale = scale * rstd
    for tile in range(tiles):
        index = last - (tl.program_id(1) * tiles + tile)
        offset, left = _place(
            index, sample, block, batches, length, stride_n, stride_c, stride_l, tall, broad
        )
        taken = inside[:, None] & (row < left)[None, :]
        place = offset + (column[:, None] * stride_c + row[None, :] * stride_l)
        z = tl.load(x + place, mask=taken, other=0.0).to(tl.float32)
        z = (z - mean[:, None]) * scale[:, None] + shift[:, None]
        if residual is not None:
            z += tl.load(residual + place, mask=taken, other=0.0).to(tl.float32)
        tl.store(y + place, activate(z, kind).to(y.dtype.element_ty), mask=taken)


def _gradient(  # type: ignore[no-untyped-def]
    grad, x, residual, place, taken, mean, rstd, scale, shift, kind: tl.constexpr
):
    """The normalized values of a tile, and the gradient behind the activation."""
    normal = (tl.load(x + place, mask=taken, other=0.0).to(tl.float32) - mean[:, None]) * rstd[:, None]
    given = tl.load(grad + place, mask=taken, other=0.0).to(tl.float32)
    if kind != "none":
        z = normal * scale[:, None] + shift[:, None]
        if residual is not None:
            z += tl.load(residual + place, mask=taken, other=0.0).to(tl.float32)
        given = given * slope(z, kind)
    return tl.where(taken, normal, 0.0), tl.where(taken, given, 0.0)


_behind: Any = triton.jit(_gradient)


def _sums(  # type: ignore[no-untyped-def]
    grad, x, residual, out, statistics, weight, bias, channels, length, batches, tiles, width,
    stride_n, stride_c, stride_l, kind: tl.constexpr, tall: tl.constexpr, broad: tl.constexpr,
):  # fmt: skip
    """Of each channel in one share the sums of the gradient, alone and times the normalized values."""
    block = tl.program_id(0)
    sample = tl.program_id(2)
    column = tl.arange(0, broad)
    channel = block * broad + column
    inside = channel < channels
    row = tl.arange(0, tall)
    mean, rstd, scale, shift = _read(
        statistics, weight, bias, sample, tl.num_programs(2), channel, inside, width, channels // width
    )
    # Added up value by value, so that threads wait for each other once and not in every tile.
    alone = tl.zeros([broad, tall], tl.float32)
    with_x = tl.zeros([broad, tall], tl.float32)
    for tile in range(tiles):
        index = tl.program_id(1) * tiles + tile
        offset, left = _place(
            index, sample, block, batches, length, stride_n, stride_c, stride_l, tall, broad
        )
        taken = inside[:, None] & (row < left)[None, :]
        place = offset + (column[:, None] * stride_c + row[None, :] * stride_l)
        normal, given = _behind(grad, x, residual, place, taken, mean, rstd, scale, shift, kind)
        alone += given
        with_x += given * normal
    share = sample * tl.num_programs(1) + tl.program_id(1)
    place = out + share.to(tl.int64) * 2 * channels + channel
    tl.store(place, tl.sum(alone, 1), mask=inside)
    tl.store(place + channels, tl.sum(with_x, 1), mask=inside)


def _total(  # type: ignore[no-untyped-def]
    shares, weight, sums, levels, channels, width, parts, count, many: tl.constexpr, broad: tl.constexpr
):
    """The sums of each channel of a slab, and of the slab their weighted means over its `count` values."""
    group = tl.program_id(0)
    sample = tl.program_id(1)
    slabs = tl.num_programs(0) * tl.num_programs(1)
    begin = shares + (sample * parts).to(tl.int64) * 2 * channels + group * width
    part = tl.arange(0, many)[:, None]
    level = tl.zeros([broad], tl.float32)
    slant = tl.zeros([broad], tl.float32)
    for start in range(0, width, broad):
        column = start + tl.arange(0, broad)
        inside = column < width
        alone = tl.zeros([broad], tl.float32)
        with_x = tl.zeros([broad], tl.float32)
        for share in range(0, parts, many):
            place = begin + (share + part) * 2 * channels + column[None, :]
            taken = (share + part < parts) & inside[None, :]
            alone += tl.sum(tl.load(place, mask=taken, other=0.0), 0)
            with_x += tl.sum(tl.load(place + channels, mask=taken, other=0.0), 0)
        place = sums + sample * 2 * channels + group * width + column
        tl.store(place, alone, mask=inside)
        tl.store(place + channels, with_x, mask=inside)
        scale = tl.zeros([broad], tl.float32) + 1.0
        if weight is not None:
            scale = tl.load(weight + group * width + column, mask=inside, other=0.0).to(tl.float32)
        level += alone * scale
        slant += with_x * scale
    place = levels + sample * tl.num_programs(0) + group
    tl.store(place, tl.sum(level, 0) / count)
    tl.store(place + slabs, tl.sum(slant, 0) / count)


def _back(  # type: ignore[no-untyped-def]
    grad, x, residual, dx, dresidual, statistics, levels, weight, bias, channels, length, batches, tiles,
    width, stride_n, stride_c, stride_l, kind: tl.constexpr, tall: tl.constexpr, broad: tl.constexpr,
):  # fmt: skip
    """`dx = rstd * (weight * g - level - normal * slant)`, with `g` the gradient behind the activation."""
    block = tl.program_id(0)
    samples = tl.num_programs(2)
    sample = samples - 1 - tl.program_id(2)
    column = tl.arange(0, broad)
    channel = block * broad + column
    inside = channel < channels
    row = tl.arange(0, tall)
    last = (length + tall - 1) // tall * batches - 1
    groups = channels // width
    mean, rstd, scale, shift = _read(
        statistics, weight, bias, sample, samples, channel, inside, width, groups
    )
    level = tl.zeros([broad], tl.float32)
    slant = tl.zeros([broad], tl.float32)
    if levels is not None:
        level = tl.load(levels + sample * groups + channel // width, mask=inside, other=0.0)
        slant = tl.load(levels + (samples + sample) * groups + channel // width, mask=inside, other=0.0)
    for tile in range(tiles):
        index = last - (tl.program_id(1) * tiles + tile)
        offset, left = _place(
            index, sample, block, batches, length, stride_n, stride_c, stride_l, tall, broad
        )
        taken = inside[:, None] & (row < left)[None, :]
        place = offset + (column[:, None] * stride_c + row[None, :] * stride_l)
        normal, given = _behind(grad, x, residual, place, taken, mean, rstd, scale, shift, kind)
        value = given * scale[:, None] - level[:, None] - normal * slant[:, None]
        tl.store(dx + place, (value * rstd[:, None]).to(dx.dtype.element_ty), mask=taken)
        if dresidual is not None:
            tl.store(dresidual + place, given.to(dresidual.dtype.element_ty), mask=taken)


moments: Any = triton.jit(_moments)
merge: Any = triton.jit(_merge)
apply: Any = triton.jit(_apply)
sums: Any = triton.jit(_sums)
total: Any = triton.jit(_total)
back: Any = triton.jit(_back)
