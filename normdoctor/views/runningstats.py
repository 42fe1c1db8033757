"""Running statistics beside those of the batches that came in, for every BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from normdoctor.graph import Graph
from normdoctor.rules.batchstats import initial, live_channels, norm_sites, remainder
from normdoctor.rules.sites import Site
from normdoctor.rules.stalestats import RATIO, SHIFT

#: From these shifts and ratios on ND703 looks closer at a channel.
LIMITS = (SHIFT, RATIO)
#: So that nothing is divided by zero where a norm has no epsilon.
LEAST = 1e-30


class RunningStats(msgspec.Struct, frozen=True, kw_only=True):
    """One BatchNorm with running statistics: how far they are from what was measured, over its channels.

    The statistics are compared as they are, a part of their initial values included. Channels that do not
    vary are left out. In a watch the weights move: there the last batches are compared with the running
    statistics in front of each.

    Args:
        module: Its path, or that of the module in whose forward a function stands.
        call: Which of the calls of its kind there it is, from 0.
        channels: How many channels were compared.
        batches: From how many batches the measured statistics are.
        training: It normalized by the statistics of its batch.
        initial: The share of the running statistics that is still their initial value (mean 0, variance 1).
        shift: |mean - running mean| in standard deviations of the measured values, of the median channel.
        worst_shift: The same, of the channel where it is largest.
        worst_shift_channel: The place of that channel.
        ratio: (variance + eps) / (running variance + eps), of the median channel.
        worst_ratio: The same, of the channel where it is furthest from 1, as a factor.
        worst_ratio_channel: The place of that channel.
    """

    module: str
    call: int
    channels: int
    batches: int
    training: bool
    initial: float
    shift: float
    worst_shift: float
    worst_shift_channel: int
    ratio: float
    worst_ratio: float
    worst_ratio_channel: int


def running_stats(graph: Graph) -> tuple[RunningStats, ...]:
    """Every BatchNorm with running statistics that was measured, in the order in which they first ran."""
    found = (_compared(site) for site in norm_sites(graph) if site.figures["tracked"])
    return tuple(one for one in found if one is not None)


def _compared(site: Site) -> RunningStats | None:
    figures, channels = site.figures, live_channels(site)
    if not channels:
        return None
    found = _watched(figures, channels) if site.source == "watch" else _at_rest(figures, channels)
    shifts, ratios = zip(*found, strict=True)
    factors = [max(ratio, 1.0 / max(ratio, LEAST)) for ratio in ratios]
    furthest, oddest = shifts.index(max(shifts)), factors.index(max(factors))
    return RunningStats(
        module=site.module,
        call=figures["call"],
        channels=len(channels),
        batches=site.batches,
        training=figures["training"],
        initial=round(_initial(site), 6),
        shift=median(shifts),
        worst_shift=shifts[furthest],
        worst_shift_channel=channels[furthest],
        ratio=median(ratios),
        worst_ratio=ratios[oddest],
        worst_ratio_channel=channels[oddest],
    )


def _at_rest(figures: dict[str, Any], channels: Sequence[int]) -> list[tuple[float, float]]:
    """(shift, ratio) of each channel: all batches against the running statistics before the first."""
    eps = figures["eps"] + LEAST
    means, variances = figures["mean"], figures["variance"]
    running_means, running_vars = figures["running_mean"], figures["running_var"]
    return [
        (
            abs(means[c] - running_means[c]) / math.sqrt(variances[c] + eps),
            (variances[c] + eps) / (running_vars[c] + eps),
        )
        for c in channels
    ]


def _watched(figures: dict[str, Any], channels: Sequence[int]) -> list[tuple[float, float]]:
    """(shift, ratio) of each channel: the last batches against the running statistics before each."""
    eps = figures["eps"] + LEAST
    recent, variances, running = figures["recent"], figures["batch_variance"], figures["last_running_var"]
    gaps, logs = recent["gap"], recent["log_ratio"]
    return [
        (
            abs(gaps[c]) / math.sqrt(variances[c] + eps),
            (math.exp(min(logs[c], 700.0)) * running[c] + eps) / (running[c] + eps),
        )
        for c in channels
    ]


def _initial(site: Site) -> float:
    untouched = initial(site.figures["running_mean"], site.figures["running_var"])
    return 1.0 if untouched else remainder(site)
