"""Kernels of the norms of rows: LayerNorm and RMSNorm.

A program holds `tall` rows at once, so that a row is read once and its variance is taken around its mean.
Backward, a program goes through its share of all rows and keeps the sums for weight and bias in registers;
the shares are added up in a fixed order.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from normdoctor.layers.kernels.pointwise import activate, slope

triton: Any = import_module("triton")
tl: Any = import_module("triton.language")


def _forward(  # type: ignore[no-untyped-def]
    x, y, residual, weight, bias, mean, rstd, rows, width, eps,
    centre: tl.constexpr, kind: tl.constexpr, tall: tl.constexpr, broad: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * tall + tl.arange(0, tall)
    column = tl.arange(0, broad)
    across = column < width
    inside = row < rows
    taken = inside[:, None] & across[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    values = tl.load(x + place, mask=taken, other=0.0).to(tl.float32)
    if centre:
        middle = tl.sum(values, 1) / width
        values = tl.where(taken, values - middle[:, None], 0.0)
        tl.store(mean + row, middle, mask=inside)
    scale = 1.0 / tl.sqrt_rn(tl.sum(values * values, 1) / width + eps)
    tl.store(rstd + row, scale, mask=inside)
    z = values * scale[:, None]
    if weight is not None:
        z = z * tl.load(weight + column, mask=across, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        z = z + tl.load(bias + column, mask=across, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        z = z + tl.load(residual + place, mask=taken, other=0.0).to(tl.float32)
    tl.store(y + place, activate(z, kind).to(y.dtype.element_ty), mask=taken)


def _backward(  # type: ignore[no-untyped-def]
    grad, x, residual, weight, bias, mean, rstd, dx, dresidual, dweight, dbias, rows, width, tiles,
    centre: tl.constexpr, kind: tl.constexpr, tall: tl.constexpr, broad: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, broad)
    across = column < width
    factor = tl.zeros([broad], tl.float32) + 1.0
    shift = tl.zeros([broad], tl.float32)
    if weight is not None:
        factor = tl.load(weight + column, mask=across, other=0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + column, mask=across, other=0.0).to(tl.float32)
    of_weight = tl.zeros([broad], tl.float32)
    of_bias = tl.zeros([broad], tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0) * tiles + tile) * tall + tl.arange(0, tall)
        inside = row < rows
        taken = inside[:, None] & across[None, :]
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        normal = tl.load(x + place, mask=taken, other=0.0).to(tl.float32)
        given = tl.load(grad + place, mask=taken, other=0.0).to(tl.float32)
        scale = tl.load(rstd + row, mask=inside, other=0.0)
        if centre:
            normal = normal - tl.load(mean + row, mask=inside, other=0.0)[:, None]
        normal = tl.where(taken, normal * scale[:, None], 0.0)
        if kind != "none":
            z = normal * factor[None, :] + shift[None, :]
            if residual is not None:
                z = z + tl.load(residual + place, mask=taken, other=0.0).to(tl.float32)
            given = tl.where(taken, given * slope(z, kind), 0.0)
        if dresidual is not None:
            tl.store(dresidual + place, given.to(dresidual.dtype.element_ty), mask=taken)
        if dweight is not None:
            of_weight += tl.sum(given * normal, 0)
        if dbias is not None:
            of_bias += tl.sum(given, 0)
        given = given * factor[None, :]
        value = given - normal * (tl.sum(given * normal, 1) / width)[:, None]
        if centre:
            value = value - (tl.sum(given, 1) / width)[:, None]
        tl.store(dx + place, (value * scale[:, None]).to(dx.dtype.element_ty), mask=taken)
    place = tl.program_id(0) * width + column
    if dweight is not None:
        tl.store(dweight + place, of_weight, mask=across)
    if dbias is not None:
        tl.store(dbias + place, of_bias, mask=across)


forward: Any = triton.jit(_forward)
backward: Any = triton.jit(_backward)
