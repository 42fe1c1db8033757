"""The statistics of one activation: a bounded sample of it, reduced to one column a unit.

Nothing here waits for the device, and what is kept in Python follows from shapes alone.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)

#: Where an activation counts as saturated, as bounds of its output. |z| > 6 of a sigmoid and |z| > 3 of a
#: tanh leave less than 0.25 % and 1 % of the largest derivative; hard variants have none beyond theirs.
BOUNDS: dict[str, tuple[float, float]] = {
    "sigmoid": (1 / (1 + math.exp(6)), 1 / (1 + math.exp(-6))),
    "tanh": (math.tanh(-3), math.tanh(3)),
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "relu6": (-math.inf, 6.0),
}

#: Below this, float32 holds every count.
EXACT = 2**24

#: The least and the largest output of bounded activations.
RANGES: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
}


def sample(output: Tensor, axis: int, budget: int | None, phase: int = 0) -> Tensor:
    """At most about `budget` values of `output`, with every unit along `axis` among them.

    Positions are thinned before samples, evenly; `phase` moves the grid from look to look.
    """
    if budget is None or output.numel() <= budget:
        return output
    for dim in reversed(range(output.dim())):
        excess = -(-output.numel() // budget)
        if excess <= 1:
            break
        if dim != axis:
            step = min(excess, output.shape[dim])
            output = output[(slice(None),) * dim + (slice(phase % step, None, step),)]
    return output


def thinned_copy(output: Tensor, axis: int, budget: int, phase: int = 0) -> Tensor:
    """The values of `sample`, copied, with the units along the last axis: by one call of torch's.

    Behind a large layer the code of each call has to be fetched again, so calls are what this costs.
    """
    size, strides, shift = _grid(output.shape, output.stride(), axis, budget, phase)
    return torch.as_strided_copy(output, size, strides, output.storage_offset() + shift)


@functools.lru_cache(maxsize=512)
def _grid(
    shape: tuple[int, ...], strides: tuple[int, ...], axis: int, budget: int, phase: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Sizes, strides and offset of the values that `sample` takes; `axis` is the last one."""
    size, stride, shift = list(shape), list(strides), 0
    for dim in reversed(range(len(shape))):
        excess = -(-math.prod(size) // budget)
        if excess <= 1:
            break
        if dim != axis:
            step = min(excess, shape[dim])
            first = phase % step
            size[dim] = len(range(first, shape[dim], step))
            stride[dim] *= step
            shift += first * strides[dim]
    order = [dim for dim in range(len(shape)) if dim != axis] + [axis]
    return tuple(size[dim] for dim in order), tuple(stride[dim] for dim in order), shift


def rows_of(
    values: Tensor,
    axis: int,
    bounds: tuple[float, float] | None,
    span: tuple[float, float] | None = None,
) -> Tensor:
    """Statistics of each unit, of shape (10, units); the rows are `normdoctor.probing.ledger.ROWS`.

    `bounds` are those of `BOUNDS`, `span` is the range of the activation.
    """
    if values.is_cuda and (fused := in_one_read(values, axis, bounds, span)) is not None:
        return fused
    values = observations(values, axis)
    n = len(values)
    mean = values.mean(0)
    scratch = values - mean
    m2 = scratch.square_().sum(0)
    least, most = values.amin(0), values.amax(0)
    low = high = level = torch.zeros_like(mean)
    if bounds is not None:
        low = _counted(torch.le, values, bounds[0], scratch) if bounds[0] > -math.inf else low
        high = _counted(torch.ge, values, bounds[1], scratch)
    if span is not None:
        middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
        level = torch.sub(values, middle, out=scratch).abs_().mean(0) * (n / half)
    active = _counted(torch.gt, values, 0.0, scratch)
    return finished(n, mean, m2, least, most, active, low, high, level)


def observations(values: Tensor, axis: int) -> Tensor:
    """One row an observation, of shape (n, units); float32 for half precision. A view where it can be one.

    Reductions over the first of two axes are by far the fastest on a CPU.
    """
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.movedim(axis, -1).reshape(-1, values.shape[axis])


def _counted(compare: Callable[..., Tensor], values: Tensor, bound: float, scratch: Tensor) -> Tensor:
    """How many values of each unit compare so; a sum of numbers takes half the time of one of flags."""
    exact = len(values) < EXACT or values.dtype == torch.float64
    return (compare(values, bound, out=scratch) if exact else compare(values, bound)).sum(0)


def finished(n: int, mean: Tensor, m2: Tensor, *rest: Tensor) -> Tensor:
    """Rows of shape (10, units) from those between first and last; units with bad values are empty."""
    wide = torch.float32 if mean.device.type == "mps" else torch.float64
    finite = torch.isfinite(m2)
    kinds = {row.dtype for row in (mean, m2, *rest)}
    if n < EXACT and kinds <= {torch.float32, torch.int64}:
        rows = torch.stack([finite * float(n), mean, m2, *(row.float() for row in rest)]).to(wide)
    else:
        rows = torch.stack([row.to(wide) for row in (finite * n, mean, m2, *rest)])
    rows = torch.where(finite, rows, _nothing(rows.device, wide))
    return torch.cat((rows, (~finite).to(wide).unsqueeze(0)))


def in_one_read(
    values: Tensor, axis: int, bounds: tuple[float, float] | None, span: tuple[float, float] | None
) -> Tensor | None:
    """The same rows by the kernel of Triton; None where there is none for this tensor or machine."""
    kernels = _kernels()
    if kernels is None or kernels in _FAILED or not kernels.usable(values):
        return None
    try:
        found = kernels.totals(values, axis, bounds, span)
    except Exception as error:  # a compiler that does not fit the card: torch's own calls do as well
        _FAILED.add(kernels)
        LOG.debug("the kernel for statistics cannot be used: %s", error)
        return None
    return finished(values.numel() // values.shape[axis], *found)


#: The kernels, once they could not be compiled or started here.
_FAILED: set[ModuleType] = set()


@functools.cache
def _kernels() -> ModuleType | None:
    """The kernel, where Triton is installed and can be loaded."""
    try:
        return import_module("normdoctor.probing.kernels")
    except Exception:  # no Triton, or one that does not fit this machine
        return None


@functools.lru_cache(maxsize=16)
def _nothing(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rows of a unit without observations, made on the device: a copy to it would make the host wait."""
    rows = torch.zeros(9, 1, dtype=dtype, device=device)
    rows[3].fill_(math.inf)
    rows[4].fill_(-math.inf)
    return rows
