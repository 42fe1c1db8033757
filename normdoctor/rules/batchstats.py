"""What was measured of BatchNorms, as rules ask for it: effective batch sizes, and stale statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from normdoctor.graph import Graph
from normdoctor.rules.sites import Site, sites

#: Below this many batches, running statistics still hold a part of their initial values.
YOUNG = 100
#: Running statistics as close as this to the measured ones agree with them (medians over the channels: of the
#: means in standard deviations, of the variances as the logarithm of their ratio).
AGREE = 0.25
#: A channel whose standard deviation is below this share of its mean has none in float32.
CONSTANT = 1e-6


def norm_sites(graph: Graph) -> Iterator[Site]:
    """Every BatchNorm that was observed on at least one sample, in the order in which they first ran."""
    return (site for site in sites(graph, need="batch_norm") if site.figures.get("observations"))


def live_channels(site: Site) -> list[int]:
    """The channels that vary at all; the others have nothing to normalize."""
    means, variances = site.figures["mean"], site.figures["variance"]
    return [
        channel
        for channel, (mean, variance) in enumerate(zip(means, variances, strict=True))
        if variance > 0 and math.sqrt(variance) > CONSTANT * abs(mean)
    ]


def moments(site: Site) -> tuple[list[float], list[float]]:
    """(unbiased variance of all values, variance of the means of single samples), a value a channel.

    Where weights move between the batches (in a watch) both are taken within batches.
    """
    found = site.figures
    if site.source == "watch" and found["freedom"] > 0:
        spread = found["sample_variance_within"]
        size = _mean_size(found)
        total = [v + s / size for v, s in zip(found["batch_variance"], spread, strict=True)]
        return total, spread
    spread, n = found["sample_variance"], site.observations
    return [v + s / n for v, s in zip(found["variance"], spread, strict=True)], spread


def effective(site: Site) -> float | None:
    """How many independent values one sample is worth: n_eff of a batch of B is B times this.

    Var(x) / Var(mean of one sample), by the median over the channels that vary of the root of its inverse,
    which is the standard error of the mean; None from too few samples.
    Positions of one sample are correlated, so as a rule it lies between 1 and their number; below 1, where
    whole samples differ by their level, and above, where variance hangs on the position alone (zero padding).
    """
    if site.observations < 2:
        return None
    total, spread = moments(site)
    found = [math.sqrt(spread[c] / total[c]) for c in live_channels(site) if spread[c] > 0]
    if not found:
        return None
    per_sample = 1.0 / median(found) ** 2
    # In train mode, norms in front that saw one sample took its level out: positions are the bound then.
    lone = site.figures["training"] and set(site.figures["batch_sizes"]) == {"1"}
    return min(per_sample, float(site.figures["positions"])) if lone else per_sample


def error_of_mean(per_sample: float, batch: int) -> float:
    """The standard error of a batch's mean, in standard deviations of the values: 1/sqrt(n_eff)."""
    return 1.0 / math.sqrt(per_sample * batch)


def smallest_batch(per_sample: float, limit: float) -> int:
    """The smallest batch whose mean has a standard error of at most `limit` standard deviations."""
    return max(math.ceil(1 / (limit * limit * per_sample) - 1e-9), 1)


def usual_batch(site: Site, run: dict[str, Any]) -> int:
    """The batch size of the training: as stated, otherwise that of most batches."""
    stated = run.get("batch_size")
    if isinstance(stated, int):
        return stated
    sizes = {int(size): count for size, count in site.figures["batch_sizes"].items()}
    return max(sizes, key=lambda size: (sizes[size], size))


def _mean_size(figures: dict[str, Any]) -> float:
    sizes = {int(size): count for size, count in figures["batch_sizes"].items()}
    return float(sum(size * count for size, count in sizes.items()) / max(sum(sizes.values()), 1))


def remainder(site: Site) -> float:
    """Which share of the running statistics is still their initial value (mean 0, variance 1).

    (1 - momentum)^n after n batches, where they are counted and the statistics can be that young: they may
    have been taken anew since, or come from a checkpoint without a counter. Otherwise, also where the counter
    stands at zero, the share that fits the channels best, if it fits most of them:
    running = (1 - share) * measured + share * initial.
    """
    figures = site.figures
    counted = figures.get("batches_tracked")
    seen = 0 if counted is None else counted[0 if site.source != "watch" else 1]
    if seen:
        momentum = figures["momentum"]
        share = float((1 - momentum) ** seen) if 0 < momentum < 1 and seen < YOUNG else 0.0
        return share if share > 0 and not replaced(site, share) else 0.0
    watched = site.source == "watch"
    held = ("last_running_mean", "last_running_var") if watched else ("running_mean", "running_var")
    measured = figures["batch_variance"] if watched else figures["variance"]
    channels = list(zip(figures["mean"], measured, figures[held[0]], figures[held[1]], strict=True))
    # A variance near 1 says nothing: it is the initial value as well.
    shares = [(running - v) / (1 - v) for _, v, _, running in channels if abs(1 - v) > 0.6]
    share = median(shares) if len(shares) > 0.5 * len(channels) else 0.0
    if not 0.02 < share < 0.98 or median(abs(one - share) for one in shares) > 0.25 * share:
        return 0.0
    fits = [
        abs(running_mean / (1 - share) - mean) < 3 * math.sqrt(v)
        and 0.5 * v < (running - share) / (1 - share) < 2 * v
        for mean, v, running_mean, running in channels
    ]
    return share if sum(fits) > 0.75 * len(fits) else 0.0


def replaced(site: Site, share: float) -> bool:
    """Is it certain that so large a share of the running statistics is not their initial value?

    A running variance is at least the share, since the initial one is 1 and none is negative. And statistics
    that were taken anew agree with the data as they are, better than without that share.
    """
    figures = site.figures
    watched = site.source == "watch"
    held = ("last_running_mean", "last_running_var") if watched else ("running_mean", "running_var")
    means, variances = figures[held[0]], figures[held[1]]
    if min(variances, default=1.0) < 0.99 * share:
        return True
    measured = figures["batch_variance"] if watched else figures["variance"]
    as_is: list[float] = []
    without: list[float] = []
    for channel in live_channels(site):
        mean, variance = figures["mean"][channel], measured[channel] + figures["eps"]
        rest = max((variances[channel] - share) / (1 - share), 0.0) if share < 1 else 0.0
        for found, away, spread in (
            (as_is, means[channel] - mean, variances[channel]),
            (without, means[channel] / max(1 - share, 1e-3) - mean, rest),
        ):
            ratio = abs(math.log((spread + figures["eps"]) / variance)) if variance > 0 else 0.0
            found.append(max(abs(away) / math.sqrt(max(variance, 1e-30)), ratio))
    return bool(as_is) and median(as_is) < min(AGREE, median(without))


def ratio_of_batches(site: Site) -> float | None:
    """Variance of the batches' means over what independent samples give: 1 for shuffled data.

    Of batches of several sizes, as with a smaller last one, each counts by its size: the F of a one-way
    analysis of variance of the samples' means.
    """
    live, found = live_channels(site), site.figures
    if len(found["batch_sizes"]) > 1:
        free, batches = found["freedom"], max(site.batches - 1, 1)
        within = [found["sample_variance_within"][channel] for channel in live]
        among = [
            ((site.observations - 1) * found["sample_variance"][channel] - free * inside) / batches
            for channel, inside in zip(live, within, strict=True)
        ]
    else:
        within, among = ([found[name][channel] for channel in live] for name in ("expected", "between"))
    ratios = [outside / inside for outside, inside in zip(among, within, strict=True) if inside > 0]
    return median(ratios) if ratios else None


def initial(means: Sequence[float], variances: Sequence[float]) -> bool:
    """Are these the statistics that a BatchNorm starts with?"""
    return all(mean == 0 for mean in means) and all(variance == 1 for variance in variances)
