"""The statistics of a BatchNorm's input as rows of a ledger: of one batch, of many, and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from normdoctor.probing.normstats import Batch

#: What is kept of a channel, one row each.
#:
#: - samples, mean, m2: count, mean, and sum of squared deviations of the means of samples
#: - within: sum over samples of their biased variance over positions
#: - batches, batch_mean, batch_m2: the same of the means of whole batches
#: - batch_variance: sum over batches of their biased variance
#: - freedom, scatter: sums over batches of (samples - 1) and of the squared deviations of the samples'
#:   means from their batch's
#: - expected: sum over batches of the variance that the batch's mean has if its samples are independent
#: - first_*, last_*: the running statistics in front of the first and of the last batch
#: - gap, gap_square, log_ratio, noise: over the last batches, of batch mean - running mean, its square,
#:   log(batch variance / running variance), and the squared standard error of the batch mean
#: - bad: batches that held NaN or infinity, left out of the rest
ROWS = (
    "samples mean m2 within batches batch_mean batch_m2 batch_variance freedom scatter expected "
    "first_mean first_variance last_mean last_variance gap gap_square log_ratio noise bad"
).split()
#: Below this share of the running variance, the batch's cannot be recovered from the update of a float32
#: buffer: the difference has lost its digits.
RECOVERABLE = 1e-4
#: Over how many batches the recent figures reach.
RECENT = 8

_AT = {name: place for place, name in enumerate(ROWS)}
_SUMS = ("within", "batch_variance", "freedom", "scatter", "expected", "bad")


def blank(units: int, like: Tensor) -> Tensor:
    """Statistics of no batch."""
    return torch.zeros(len(ROWS), units, dtype=like.dtype, device=like.device)


def rows_of(batches: Sequence[Batch]) -> Tensor:
    """The rows of several sites, side by side: of as many samples each, from batches of one size."""
    first = batches[0]
    wide = torch.float32 if first.means.device.type == "mps" else torch.float64
    means = torch.cat([batch.means for batch in batches], dim=1).to(wide)
    within = torch.cat([_within(batch) for batch in batches]).to(wide)
    k = len(means)
    # A tenth of the time of torch.var_mean over the first axis.
    mean = means.mean(0)
    m2 = (means - mean).square_().sum(0)
    variance = (within + m2) / k
    running, moved, whole = (
        _side_by_side([getattr(one, name) for one in batches]) for name in ("running", "moved", "whole")
    )
    batch_mean, batch_variance = mean, variance
    if whole:
        batch_mean, batch_variance = whole
        within = (k * batch_variance - m2).clamp_(min=0)
    elif running and moved:
        batch_mean, found = _recovered(batches, running, moved)
        known = found > RECOVERABLE * running[1]
        batch_variance = torch.where(known, found, variance)
        within = torch.where(known, (k * found - m2).clamp_(min=0), within)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    noise = m2 / max(k - 1, 1) / first.size
    recent = [zero] * 3
    if running:
        gap = batch_mean - running[0]
        ratio = batch_variance.clamp(min=1e-12) / running[1].clamp(min=1e-12)
        recent = [gap, gap * gap, ratio.log()]
    rows = torch.stack(
        [k * one, mean, m2, within, one, batch_mean, zero, batch_variance, (k - 1) * one, m2, noise,
         *(running or [zero, zero]) * 2, *recent, noise, zero]
    )  # fmt: skip
    finite = torch.isfinite(rows.sum(0))
    rows.masked_fill_(~finite, 0.0)
    rows[-1] = (~finite).to(wide)
    return rows


def _within(batch: Batch) -> Tensor:
    """The sum over samples of their biased variance over positions, of shape (channels,)."""
    if batch.spread is not None:
        return batch.spread
    if batch.few is None:
        return torch.zeros_like(batch.means[0])
    # One site after the other: of all sites at once the differences would not fit the caches.
    few = batch.few.to(batch.means.dtype)
    return (few - batch.means).square_().sum((0, 1)).div_(len(few))


def _side_by_side(pairs: Sequence[tuple[Tensor, Tensor] | None]) -> list[Tensor]:
    """The first and the second of each pair in one row each, wide; nothing where there are none."""
    held = [pair for pair in pairs if pair is not None]
    if not held:
        return []
    wide = torch.float32 if held[0][0].device.type == "mps" else torch.float64
    return [torch.cat([pair[i] for pair in held]).to(wide) for i in (0, 1)]


def _recovered(
    batches: Sequence[Batch], running: Sequence[Tensor], moved: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of whole batches, from what they moved in the running statistics."""
    momentum = batches[0].momentum
    mean, variance = (
        (after - (1 - momentum) * before) / momentum for before, after in zip(running, moved, strict=True)
    )
    parts = torch.split(variance, [batch.means.shape[1] for batch in batches])
    torch._foreach_mul_(parts, [(batch.values - 1) / batch.values for batch in batches])
    return mean, variance


def merge(total: Tensor, batch: Tensor) -> None:
    """Add to the statistics of some batches those of later ones; both of shape (rows, units).

    Means and squared deviations are merged exactly (Chan, Golub and LeVeque, 1979); of the recent figures
    an exponential mean over `RECENT` batches is kept.
    """
    at = {name: total[place] for name, place in _AT.items()}
    new = {name: batch[place] for name, place in _AT.items()}
    was, now = at["batches"].clone(), new["batches"]
    share = now / torch.minimum(was + now, RECENT * now).clamp_(min=1)
    for name in ("gap", "gap_square", "log_ratio", "noise"):
        at[name].lerp_(new[name], share)
    for count, mean, m2 in (("samples", "mean", "m2"), ("batches", "batch_mean", "batch_m2")):
        part = new[count] / (at[count] + new[count]).clamp_(min=1)
        delta = new[mean] - at[mean]
        at[mean].addcmul_(delta, part)
        at[m2].add_(new[m2]).addcmul_(delta.square_().mul_(at[count]), part)
        at[count].add_(new[count])
    for name in _SUMS:
        at[name].add_(new[name])
    for name in ("first_mean", "first_variance"):
        at[name].copy_(torch.where(was > 0, at[name], new[name]))
    for name in ("last_mean", "last_variance"):
        at[name].copy_(torch.where(now > 0, new[name], at[name]))


def figures(rows: Tensor, *, tracked: bool) -> dict[str, Any]:
    """Plain data of one site, from its rows on the host; lists hold one value a channel.

    `mean` and `variance` (biased) are those of all values that were read; `batch_variance` is the mean
    biased variance of a batch. `sample_variance` is the unbiased variance of the means of single samples,
    `sample_variance_within` that within batches alone. `between` is the unbiased variance of the means of
    batches, `expected` what it would be if batches held independent samples. `running_mean` and
    `running_var` are those in front of the first batch, `last_running_*` in front of the last; `recent`
    holds the mean over the last batches of batch mean - running mean (`gap`), of its square, of
    log(batch variance / running variance) and of the squared standard error of the batch mean (`noise`).
    `z` is that gap's root mean square in standard errors.
    """
    at = {name: rows[place] for name, place in _AT.items()}
    samples, batches = at["samples"].clamp(min=1), at["batches"].clamp(min=1)
    free, freedom = (at["samples"] - 1).clamp(min=1), at["freedom"].clamp(min=1)
    found: dict[str, Any] = {
        "observations": int(at["samples"].max()),
        "batches": int(at["batches"].max()),
        "bad_batches": int(at["bad"].max()),
        "mean": _plain(at["mean"]),
        "variance": _plain((at["within"] + at["m2"]) / samples),
        "batch_variance": _plain(at["batch_variance"] / batches),
        "sample_variance": _plain(at["m2"] / free),
        "sample_variance_within": _plain(at["scatter"] / freedom),
        "freedom": int(at["freedom"].max()),
        "between": _plain(at["batch_m2"] / (at["batches"] - 1).clamp(min=1)),
        "expected": _plain(at["expected"] / batches),
    }
    if tracked:
        z = (at["gap_square"] / at["noise"].clamp(min=1e-300)).sqrt()
        found |= {
            "running_mean": _plain(at["first_mean"]),
            "running_var": _plain(at["first_variance"]),
            "last_running_mean": _plain(at["last_mean"]),
            "last_running_var": _plain(at["last_variance"]),
            "recent": {name: _plain(at[name]) for name in ("gap", "gap_square", "log_ratio", "noise")},
            "z": _plain(torch.where(at["noise"] > 0, z, 0.0)),
        }
    return found


def _plain(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in values.tolist()]
