"""Gradients and updates of a training on many ranks, from what each of them noted of its own.

Ranks see the same gradient where it was averaged in front of the optimizer's step, as
DistributedDataParallel does: then what all saw is what each saw, and a training on one process with the
same batches has the same norms. Where ranks hold shards of a parameter, the squares of their norms add up.
One formula covers both: the sum of squares over ranks divided by how many ranks hold the same part. Where
replicas have gradients of their own (nobody averaged them), that is their root mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normdoctor.probing.gradientbank import ACTIVE, CHANGED, NORM, ROWS, UPDATE, WEIGHT
from normdoctor.probing.gradientfigures import Parameter, gradient_figures, update_figures
from normdoctor.probing.gradients import GradientCollector
from normdoctor.probing.series import RECENT


class Noted(NamedTuple):
    """What one rank noted of a parameter.

    Args:
        about: The parameter, without its values.
        shards: Into how many parts it is divided over ranks.
        steps: The steps of the last looks.
        tables: What was noted at them, of shape (looks, rows of `gradientbank.ROWS`).
        counts: The counters of `gradientbank.Bank`.
    """

    about: Parameter
    shards: int
    steps: list[int]
    tables: Tensor
    counts: Tensor


class Share(NamedTuple):
    """What one rank noted of all parameters; `stepped` where it saw an optimizer."""

    noted: list[Noted]
    stepped: bool


def share_of(collector: GradientCollector) -> Share:
    """What this rank noted, on the host. Waits for the device."""
    noted, places = [], collector.places()
    for bank in collector.banks if any(bank.series.looks for bank in collector.banks) else ():
        steps, tables = bank.series.last(bank.series.recent.cpu())
        counts = bank.counts.cpu()
        for column, member in enumerate(bank.members):
            one = collector.parameters[member]
            about = replace(one, tensor=_hollow(one.tensor), place=places.get(member))
            found = (steps, tables[:, :, column].double(), counts[:, column].double())
            noted.append(Noted(about, shards_of(one.tensor), *found))
    return Share(noted, collector.stepped)


def joined(shares: Sequence[Share]) -> dict[str, dict[str, Any]]:
    """The figures of the needs "gradients" and "updates" over all ranks; empty where none had a look."""
    groups: dict[str, list[Noted]] = {}
    for noted in (noted for share in shares for noted in share.noted):
        group = groups.setdefault(noted.about.name, [])
        if not group or group[0].about.shape == noted.about.shape:  # stages of a pipeline share names
            group.append(noted)
    if not groups:
        return {}
    stepped = any(share.stepped for share in shares)
    found: dict[str, dict[str, Any]] = {"gradients": {}, "updates": {}}
    for name, group in groups.items():
        one, steps, tables = _about(group), *_tables(group)
        counts = _counts(group)
        found["gradients"][name] = gradient_figures(one, steps, tables, counts, stepped=stepped)
        found["updates"][name] = update_figures(one, tables, counts)
    return found


def shards_of(tensor: Tensor) -> int:
    """Into how many parts a parameter is divided over ranks; 1 where each rank holds all of it."""
    placements, mesh = getattr(tensor, "placements", None), getattr(tensor, "device_mesh", None)
    if placements is None or mesh is None:
        return 1
    count = 1
    for axis, placement in enumerate(placements):
        count *= int(mesh.size(axis)) if placement.is_shard() else 1
    return count


def _hollow(tensor: Tensor) -> nn.Parameter:
    empty = torch.empty(0, device="meta", dtype=tensor.dtype)
    return nn.Parameter(empty, requires_grad=tensor.requires_grad)


def _about(group: Sequence[Noted]) -> Parameter:
    first = group[0].about
    return replace(
        first,
        optimized=any(one.about.optimized for one in group),
        looks=max(one.about.looks for one in group),
    )


def _tables(group: Sequence[Noted]) -> tuple[list[int], Tensor]:
    """The last looks of all ranks together, step by step."""
    by_step: dict[int, list[Tensor]] = {}
    for one in group:
        for step, table in zip(one.steps, one.tables, strict=True):
            by_step.setdefault(step, []).append(table)
    shards = group[0].shards
    steps = [step for step in sorted(by_step) if len(by_step[step]) >= shards][-RECENT:]
    if not steps:
        return [], torch.zeros(0, len(ROWS), dtype=torch.float64)
    return steps, torch.stack([_look(torch.stack(by_step[step]), shards) for step in steps])


def _look(tables: Tensor, shards: int) -> Tensor:
    """One look, from those of some ranks; of shape (ranks, rows)."""
    found = tables.nanmean(0)  # the shares of a sample: zeros, grid
    for row, absent in ((NORM, tables[:, NORM] == -1), (WEIGHT, None), (UPDATE, None)):
        held = tables[:, row][~(tables[:, row].isnan() if absent is None else absent)]
        same = max(len(held) / shards, 1.0)
        found[row] = (held.square().sum() / same).sqrt() if len(held) else torch.nan
    if bool((tables[:, NORM] == -1).all()):
        found[NORM] = -1.0
    for row in (ACTIVE, CHANGED):
        known = tables[:, row][~tables[:, row].isnan()]
        found[row] = known.amax() if len(known) else torch.nan
    return found


def _counts(group: Sequence[Noted]) -> Tensor:
    """Looks are counted once. All replicas saw the same; of shards, as many looks as are certain."""
    counts = torch.stack([one.counts for one in group])
    seen, zero, bad, still, active = counts.unbind(1)
    whole = torch.stack([seen.amax(), zero.amin(), bad.amax(), still.amin(), active.amax()])
    if group[0].shards > 1:
        # At least so often were all zero, or unmoved, at once (Frechet's bound).
        spare = seen.amax() * (len(group) - 1)
        whole[1] = (zero.sum() - spare).clamp(min=0)
        whole[3] = ((still + seen - active).sum() - spare).clamp(min=0).clamp(max=whole[4])
    return whole
