"""Running statistics beside what was measured: how far apart they are, and whether by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from normdoctor.graph import Graph
from normdoctor.rules.batchstats import (
    YOUNG,
    effective,
    initial,
    live_channels,
    norm_sites,
    ratio_of_batches,
    remainder,
    usual_batch,
)
from normdoctor.rules.sites import Site

#: Above this share, running statistics are those of a layer that was hardly trained.
FRESH = 0.95
#: When a channel is stale: standard errors and standard deviations of the mean, factor of the variance.
Z, SHIFT, RATIO = 5.0, 0.5, 2.0
#: Means of batches that vary so many times more than those of independent samples show batches of a kind.
DIFFERING = 4.0
#: Running statistics lag while weights move fast: of the first 100 batches so much more is asked.
YOUNG_FACTOR = 4.0
#: A layer is stale with more than this share of such channels.
SHARE = 0.25


@dataclass(frozen=True)
class Deviation:
    """How far the running statistics of one channel are from those of the data.

    Args:
        channel: Its place.
        z: The difference of the means, in standard errors of a batch's mean.
        shift: The same in standard deviations of the channel.
        log_ratio: The logarithm of measured variance / running variance.
    """

    channel: int
    z: float
    shift: float
    log_ratio: float


def deviations(site: Site) -> Iterator[Deviation]:
    """Every channel that varies, without the part of the running statistics that is their initial value.

    Nothing where they are initial throughout: nobody trained the layer yet.
    """
    figures = site.figures
    if not figures["tracked"] or initial(figures["running_mean"], figures["running_var"]):
        return
    share = remainder(site)
    if share > FRESH:
        return
    watched = site.source == "watch"
    held = ("last_running_mean", "last_running_var") if watched else ("running_mean", "running_var")
    means, variances = figures[held[0]], figures[held[1]]
    eps = figures["eps"]
    for channel in live_channels(site):
        variance = max((variances[channel] - share) / (1 - share), 1e-3 * variances[channel], 0.0)
        mean = means[channel] / (1 - share)
        if watched:
            recent = figures["recent"]
            gap = recent["gap"][channel] + means[channel] - mean
            noise = recent["noise"][channel]
            candidates = [math.exp(recent["log_ratio"][channel]) * max(variances[channel], 1e-12)]
        else:
            gap, candidates = figures["mean"][channel] - mean, [figures["variance"][channel]]
            if figures["freedom"]:
                # Of batches that differ, running statistics may hold the variance within them.
                candidates.append(figures["batch_variance"][channel] + figures["expected"][channel])
            noise = figures["expected"][channel]
            if site.batches > 1:
                noise = max(noise, figures["between"][channel])
        ratios = [math.log((measured + eps) / (variance + eps)) for measured in candidates]
        yield Deviation(
            channel,
            abs(gap) / math.sqrt(max(noise, 1e-30)),
            abs(gap) / math.sqrt(max(candidates) + eps),
            min(ratios, key=abs),
        )


def stale_channels(site: Site, z: float = Z, shift: float = SHIFT, ratio: float = RATIO) -> list[Deviation]:
    """The channels whose running statistics are off by more than noise, and by enough to matter.

    Either the mean, by more than `z` standard errors and `shift` standard deviations, or the variance, by a
    factor of `ratio` and `z` times its relative standard error sqrt(2/n_eff).
    """
    per_sample = effective(site)
    if per_sample is None or not site.figures["tracked"]:
        return []
    counted = site.figures.get("batches_tracked")
    if remainder(site) > 0.0 or (counted is not None and max(counted) < YOUNG):
        shift, ratio = shift * YOUNG_FACTOR, ratio * YOUNG_FACTOR
    values = per_sample * usual_batch(site, {})
    least = max(math.log(ratio), z * math.sqrt(2 / values))
    return [
        one for one in deviations(site) if (one.z > z and one.shift > shift) or abs(one.log_ratio) > least
    ]


def comparable_sites(graph: Graph) -> Iterator[Site]:
    """The BatchNorms whose input is what it is in a trained network.

    In train mode all of them; in eval mode those up to the first whose running statistics are initial, hold a
    part of their initial values still, or are stale, or whose batches differ in kind: what it hands on is
    something else than in training.
    """
    for site in norm_sites(graph):
        yield site
        figures = site.figures
        if not figures["tracked"] or figures["training"]:
            continue
        if initial(figures["running_mean"], figures["running_var"]) or remainder(site) > 0.02:
            return
        if (ratio_of_batches(site) or 0.0) > DIFFERING:
            return
        if len(stale_channels(site)) > SHARE * max(len(live_channels(site)), 1):
            return
