"""Train mode against eval mode: how much of the output rests on batch statistics being the running ones."""

from __future__ import annotations

from collections.abc import Container, Mapping
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

#: Of how many layers the share in the gap is measured: those whose own statistics differ most.
LAYERS = 4
#: Batches of fewer samples say nothing of batch noise.
FEWEST = 4

Running = Mapping[int, tuple[Tensor, Tensor]]


class TrainEvalGap:
    """How far outputs under batch statistics lie from those under running statistics.

    All runs are in eval mode, so that dropout is off in both. Running statistics that are still warming up
    are taken without the part that is their initial value.
    """

    need = "train_eval_gap"

    def run(self, studied: Studied) -> dict[str, Any]:
        """`gap`, `noise`: root mean squares in standard deviations of the outputs, medians over batches.

        `noise` is how far outputs move when each half of a batch is normalized by itself, which is how much
        the statistics of one batch differ from another's by chance. `layers` are those whose statistics
        differ most, each with the change of the output when it alone uses the batch's.
        """
        model = studied.model.eval()
        sizes = [(call, batch_size(call) or 0) for call in studied.calls]
        calls = [call for call, size in sizes if size >= FEWEST]
        sites = _sites(model, calls[:1])
        running = {
            order: one for order, site in sites.items() if (one := _settled(site, calls[0])) is not None
        }
        known = [site.figures for site in sites.values()]
        if not known or all(initial(one["running_mean"], one["running_var"]) for one in known):
            return {}
        found = [pair for call in calls if (pair := _compared(model, call, running)) is not None]
        if not found:
            return {}
        distances = {order: _distance(site, running.get(order)) for order, site in sites.items()}
        most = sorted(distances, key=lambda order: -distances[order])[:LAYERS]
        layers = [
            {
                "module": sites[order].module,
                "kind": sites[order].kind,
                "call": sites[order].figures["call"],
                "distance": round(distances[order], 6),
                "gap": round(_alone(model, calls[0], running, order), 6),
            }
            for order in most
        ]
        return {
            "model": {
                "gap": round(median(gap for gap, _ in found), 6),
                "noise": round(median(noise for _, noise in found), 6),
                "batches": len(found),
                "batch_size": batch_size(calls[0]),
                "layers": sorted(layers, key=lambda layer: -float(layer["gap"])),
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


def _settled(site: Site, call: Arguments) -> tuple[Tensor, Tensor] | None:
    """The running statistics without what is left of their initial values; None where nothing is."""
    share = remainder(site)
    if not 0 < share < 1:
        return None
    example = next(tensors(call))
    mean = torch.tensor(site.figures["running_mean"], dtype=torch.float64) / (1 - share)
    variance = (torch.tensor(site.figures["running_var"], dtype=torch.float64) - share) / (1 - share)
    least = 1e-3 * torch.tensor(site.figures["running_var"], dtype=torch.float64)
    return mean.float().to(example.device), variance.maximum(least).float().to(example.device)


def _distance(site: Site, settled: tuple[Tensor, Tensor] | None) -> float:
    """How far the batch's statistics are from the running ones, in running standard deviations."""
    figures = site.figures
    mean, variance = (torch.tensor(figures[name], dtype=torch.float64) for name in ("mean", "variance"))
    held = [torch.tensor(figures[name], dtype=torch.float64) for name in ("running_mean", "running_var")]
    if settled is not None:
        held = [one.double().cpu() for one in settled]
    scale = held[1].clamp(min=0) + figures["eps"]
    shift = (mean - held[0]) ** 2 / scale
    stretch = (((variance + figures["eps"]) / scale).sqrt() - 1) ** 2
    return float((shift + stretch).mean().sqrt())


def _output(
    model: nn.Module, call: Arguments, batch: Container[int] | None, running: Running
) -> Tensor | None:
    """The first output with the samples along its first axis, of shape (samples, values)."""
    size = batch_size(call)
    with BatchMode(batch, running):
        out = run(model, call)
    for tensor in tensors(out):
        if tensor.is_floating_point() and tensor.dim() and tensor.shape[0] == size:
            return tensor.detach().double().flatten(1) if tensor.dim() > 1 else tensor.detach().unsqueeze(1)
    return None


def _compared(model: nn.Module, call: Arguments, running: Running) -> tuple[float, float] | None:
    """(gap, noise) on one batch."""
    size = batch_size(call) or 0
    mixed = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    parts = [mixed[: size // 2], mixed[size // 2 :]]
    on_running, on_batch = _output(model, call, (), running), _output(model, call, None, running)
    halves = [_output(model, _taken(call, part), None, running) for part in parts]
    if on_running is None or on_batch is None or any(half is None for half in halves):
        return None
    order = torch.cat(parts).to(on_batch.device)
    apart = torch.cat([half for half in halves if half is not None])
    scale = _rms(on_batch - on_batch.mean(0))
    if scale == 0:
        return None
    return _rms(on_batch - on_running) / scale, _rms(apart - on_batch[order]) / scale


def _alone(model: nn.Module, call: Arguments, running: Running, order: int) -> float:
    """How much the output moves when one layer alone uses the batch's statistics."""
    without, with_it = _output(model, call, (), running), _output(model, call, (order,), running)
    if without is None or with_it is None:
        return 0.0
    return _rms(with_it - without) / max(_rms(without - without.mean(0)), 1e-30)


def _taken(call: Arguments, rows: Tensor) -> Arguments:
    made: Arguments = replaced(call, lambda tensor: tensor[rows.to(tensor.device)])
    return made


def _rms(values: Tensor) -> float:
    return float(values.pow(2).mean().sqrt())
