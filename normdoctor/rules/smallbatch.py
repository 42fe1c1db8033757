"""The small-batch advisor: how sure batch statistics are at each batch size, and what fits instead."""

from __future__ import annotations

import math

from normdoctor.facts import Facts
from normdoctor.graph import Graph
from normdoctor.rules.batchstats import (
    effective,
    initial,
    norm_sites,
    smallest_batch,
    usual_batch,
)
from normdoctor.rules.sites import Site
from normdoctor.views.batchsizes import BatchSizes

#: The largest standard error of a batch's mean that passes, in standard deviations: that of 32 independent
#: values is 0.177. On digits 0.16 costs no accuracy and 0.22 one percent.
WARNING = 0.18
#: From here on accuracy falls by several percent: fewer than 11 independent values.
ERROR = 0.30
#: A batch that is too small by no more than this can be mended by a larger one, or by more devices.
WITHIN_REACH = 4


def groups_for(channels: int) -> int:
    """A number of groups for GroupNorm: groups of 16 channels, or of the divisor next to it."""
    sizes = [size for size in range(2, channels + 1) if channels % size == 0] or [channels]
    best = min(sizes, key=lambda size: (abs(math.log2(size / 16)), -size))
    return channels // best


def alternative(site: Site, batch: int, needed: int) -> str:
    """What takes the place of a BatchNorm whose batch is too small, in a word; empty when it passes."""
    if needed <= batch:
        return ""
    channels, figures = site.units, site.figures
    if pretrained(site):
        return "frozen"
    if needed <= WITHIN_REACH * batch and batch >= 2:
        return "SyncBatchNorm" if figures["positions"] > 1 else "a larger batch"
    if figures["positions"] > 1 and channels > 1:
        return f"GroupNorm({groups_for(channels)})"
    return "LayerNorm" if channels >= 16 else "renormalization"


def pretrained(site: Site) -> bool:
    """Has it running statistics of a long training, which can be kept as they are?"""
    figures = site.figures
    counted = figures.get("batches_tracked")
    return bool(
        figures.get("tracked")
        and counted is not None
        and counted[0] >= 1000
        and not initial(figures["running_mean"], figures["running_var"])
    )


def advice(site: Site, batch: int, needed: int) -> str:
    """The alternatives in a sentence, the one that fits best first."""
    first = alternative(site, batch, needed)
    if first == "frozen":
        said = "Keep its trained statistics: put it in eval mode (frozen), or replace it"
        if site.figures["positions"] > 1 and site.units > 1:
            said += f" by GroupNorm({groups_for(site.units)}, {site.units})"
        return said + "."
    if first == "SyncBatchNorm":
        devices = math.ceil(needed / batch)
        return (
            f"Raise the batch to {needed}, use nn.SyncBatchNorm over {devices} or more devices, "
            f"or nn.GroupNorm({groups_for(site.units)}, {site.units}), which needs no batch."
        )
    if first == "a larger batch":
        return f"Raise the batch to {needed}, or use batch renormalization or nn.LayerNorm."
    if first.startswith("GroupNorm"):
        return (
            f"Use nn.GroupNorm({groups_for(site.units)}, {site.units}), which needs no batch; accumulating "
            "gradients does not help."
        )
    if first == "LayerNorm":
        return f"Use nn.LayerNorm({site.units}), which needs no batch; accumulating gradients does not help."
    return "Use batch renormalization, or running statistics; accumulating gradients does not help."


def batch_sizes(facts: Facts, limit: float = WARNING) -> tuple[BatchSizes, ...]:
    """The figures of every BatchNorm that was measured; a standard error of `limit` passes.

    None on synthetic data: how alike the values of a sample are is a property of the user's data.
    """
    run = (facts.measurements or {}).get("run", {})
    found: list[BatchSizes] = []
    if run.get("source") == "synthetic":
        return ()
    for site in norm_sites(Graph(facts)):
        per_sample = effective(site)
        if per_sample is not None:
            batch, needed = usual_batch(site, run), smallest_batch(per_sample, limit)
            found.append(
                BatchSizes(
                    module=site.module,
                    call=site.figures["call"],
                    channels=site.units,
                    positions=site.figures["positions"],
                    samples=site.observations,
                    per_sample=per_sample,
                    batch=batch,
                    passes=needed,
                    instead=alternative(site, batch, needed),
                )
            )
    return tuple(found)
