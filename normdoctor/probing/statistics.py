"""The statistics of one activation: a bounded sample of it, reduced to one column a unit.

Nothing here waits for the device, and what is kept in Python follows from shapes alone.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

#: Where an activation counts as saturated, as bounds of its output. |z| > 6 of a sigmoid and |z| > 3 of a
#: tanh leave less than 0.25 % and 1 % of the largest derivative; hard variants have none beyond theirs.
BOUNDS: dict[str, tuple[float, float]] = {
    "sigmoid": (1 / (1 + math.exp(6)), 1 / (1 + math.exp(-6))),
    "tanh": (math.tanh(-3), math.tanh(3)),
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "relu6": (-math.inf, 6.0),
}

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


def rows_of(
    values: Tensor,
    axis: int,
    bounds: tuple[float, float] | None,
    span: tuple[float, float] | None = None,
) -> Tensor:
    """Statistics of each unit, of shape (10, units); the rows are `normdoctor.probing.ledger.ROWS`.

    `bounds` are those of `BOUNDS`, `span` is the range of the activation.
    """
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    others = [dim for dim in range(values.dim()) if dim != axis]
    units = values.shape[axis]
    n = values.numel() // max(units, 1)
    if not others:
        values, others = values.unsqueeze(0), [0]
    variance, mean = torch.var_mean(values, others, correction=0)
    least, most = values.amin(others), values.amax(others)
    zero = torch.zeros_like(mean)
    low = high = level = zero
    if bounds is not None:
        low = (values <= bounds[0]).sum(others) if bounds[0] > -math.inf else zero
        high = (values >= bounds[1]).sum(others)
    if span is not None:
        middle, half = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
        level = (values - middle).abs().mean(others) * (n / half)
    active = (values > 0).sum(others)
    finite = torch.isfinite(variance)
    rows = torch.stack(
        [row.to(wide) for row in (finite * n, mean, variance * n, least, most, active, low, high, level)]
    )
    rows = torch.where(finite, rows, _nothing(rows.device, wide))
    return torch.cat((rows, (~finite).to(wide).unsqueeze(0)))


@functools.lru_cache(maxsize=16)
def _nothing(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rows of a unit without observations, made on the device: a copy to it would make the host wait."""
    rows = torch.zeros(9, 1, dtype=dtype, device=device)
    rows[3].fill_(math.inf)
    rows[4].fill_(-math.inf)
    return rows
