"""Train mode against eval mode: how much of the output rests on batch statistics being the running ones."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.probing.batchmode import BatchMode
from normdoctor.probing.data import Arguments
from normdoctor.probing.hooks import Observer
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.study import Studied, batch_size, replaced, run, tensors
from normdoctor.rules.batchstats import initial, remainder
from normdoctor.rules.sites import Site

#: How many layers are named.
LAYERS = 4
#: At how many layers the gap is measured; of deeper networks at this many, and then between two of them.
STEPS = 32
#: Batches of fewer samples say nothing of batch noise.
FEWEST = 4


class TrainEvalGap:
    """How far outputs under batch statistics lie from those under running statistics.

    All runs are in eval mode, so that dropout is off in both. Nothing is said of a network whose running
    statistics still hold a part of their initial values.
    """

    need = "train_eval_gap"

    def run(self, studied: Studied) -> dict[str, Any]:
        """`gap`, `noise`: root mean squares in standard deviations of the outputs, medians over batches.

        `noise` is how far outputs move when each half of a batch is normalized by itself, which is how much
        the statistics of one batch differ from another's by chance. `layers` are those that close most of
        the gap: by how much it falls once the norms up to and with them use the batch's statistics.
        """
        model = studied.model.eval()
        calls = [call for call in studied.calls if (batch_size(call) or 0) >= FEWEST]
        sites = _sites(model, calls[:1])
        if not sites or any(_young(site) for site in sites.values()):
            return {}
        found = [pair for call in calls if (pair := _compared(model, call)) is not None]
        if not found:
            return {}
        closed = _closed(model, calls[0], sorted(sites))
        most = sorted(closed, key=lambda order: -closed[order])[:LAYERS]
        return {
            "model": {
                "gap": round(median(gap for gap, _ in found), 6),
                "noise": round(median(noise for _, noise in found), 6),
                "batches": len(found),
                "batch_size": batch_size(calls[0]),
                "layers": [
                    {
                        "module": sites[order].module,
                        "kind": sites[order].kind,
                        "call": sites[order].figures["call"],
                        "gap": round(closed[order], 6),
                    }
                    for order in most
                ],
            }
        }


def _sites(model: nn.Module, calls: list[Arguments]) -> dict[int, Site]:
    """The batch norms that use running statistics in eval mode, by the order of their calls."""
    collector = NormCollector()
    observer = Observer(model, [collector])
    observer.attach()
    try:
        for call in calls:
            run(model, call)
    finally:
        observer.detach()
    found = observer.read()[NormCollector.need]
    sites = [Site(name, figures, "data") for name, figures in found.items()]
    return {
        site.figures["order"]: site
        for site in sites
        if site.figures["tracked"] and not site.figures["training"]
    }


def _young(site: Site) -> bool:
    figures = site.figures
    return initial(figures["running_mean"], figures["running_var"]) or remainder(site) > 0.02


def _output(model: nn.Module, call: Arguments, batch: Container[int] | None) -> Tensor | None:
    """The first output with the samples along its first axis, of shape (samples, values)."""
    size = batch_size(call)
    with BatchMode(batch):
        out = run(model, call)
    for tensor in tensors(out):
        if tensor.is_floating_point() and tensor.dim() and tensor.shape[0] == size:
            return tensor.detach().double().flatten(1) if tensor.dim() > 1 else tensor.detach().unsqueeze(1)
    return None


def _compared(model: nn.Module, call: Arguments) -> tuple[float, float] | None:
    """(gap, noise) on one batch."""
    size = batch_size(call) or 0
    mixed = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    parts = [mixed[: size // 2], mixed[size // 2 :]]
    on_running, on_batch = _output(model, call, ()), _output(model, call, None)
    halves = [_output(model, _taken(call, part), None) for part in parts]
    if on_running is None or on_batch is None or any(half is None for half in halves):
        return None
    order = torch.cat(parts).to(on_batch.device)
    apart = torch.cat([half for half in halves if half is not None])
    scale = _rms(on_batch - on_batch.mean(0))
    if scale == 0:
        return None
    return _rms(on_batch - on_running) / scale, _rms(apart - on_batch[order]) / scale


def _closed(model: nn.Module, call: Arguments, orders: Sequence[int]) -> dict[int, float]:
    """By how much the gap falls with each layer that goes over to the batch's statistics, first to last."""
    wanted = _output(model, call, None)
    if wanted is None:
        return {}
    scale = max(_rms(wanted - wanted.mean(0)), 1e-30)
    left: dict[int, float] = {}

    def gap(count: int) -> float:
        if count not in left:
            out = _output(model, call, frozenset(orders[:count]))
            left[count] = 0.0 if out is None else _rms(wanted - out) / scale
        return left[count]

    step = -(-len(orders) // STEPS)
    marks = [*range(0, len(orders), step), len(orders)]
    start, stop = max(pairwise(marks), key=lambda pair: gap(pair[0]) - gap(pair[1]))
    counts = range(start, stop) if step > 1 else range(len(orders))
    return {orders[count]: gap(count) - gap(count + 1) for count in counts}


def _taken(call: Arguments, rows: Tensor) -> Arguments:
    made: Arguments = replaced(call, lambda tensor: tensor[rows.to(tensor.device)])
    return made


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())
