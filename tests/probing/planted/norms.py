"""Faults of BatchNorm and its batches, ND701 to ND708."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader

from .scenes import NORM, PADDED, Normed, Padded
from .table import fault


@fault("ND701", Normed, NORM.NETS)
def batches_of_four(scene: Normed) -> str:
    scene.data = NORM.batches(scene.net, 8, 4)
    return str(scene.net.places[-1])  # type: ignore[attr-defined]


def _shift(scene: Normed, place: int) -> str:
    path = scene.net.places[place]  # type: ignore[attr-defined]
    norm = scene.model.get_submodule(path)
    norm.running_mean += 3.0
    norm.running_var *= 9.0
    return str(path)


@fault("ND702", Normed, NORM.NETS, beside="ND703")
def statistics_of_other_data_at_the_first_norm(scene: Normed) -> str:
    return _shift(scene, 0)


@fault("ND703", Normed, NORM.NETS, beside="ND702")
def statistics_of_other_data_at_the_last_norm(scene: Normed) -> str:
    return _shift(scene, 2)


@fault("ND704", Normed, NORM.NETS, beside="ND607 ND614 ND702 ND703")
def an_eps_above_the_variance(scene: Normed) -> str:
    path = scene.net.places[1]  # type: ignore[attr-defined]
    scene.model.get_submodule(path).eps = 1e4
    return str(path)


@fault("ND705", Normed, NORM.NETS)
def no_running_statistics(scene: Normed) -> str:
    path = scene.net.places[1]  # type: ignore[attr-defined]
    norm = scene.model.get_submodule(path)
    if scene.net is NORM.Functional:
        norm.track = False
    else:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    return str(path)


@fault("ND707", Normed, NORM.NETS)
def one_sample_left(scene: Normed) -> str:
    scene.data = DataLoader(torch.cat(scene.data)[:257], 64)
    return str(scene.net.places[0 if scene.net is NORM.Dense else 2])  # type: ignore[attr-defined]


@fault("ND708", Normed, NORM.NETS, beside="ND702")
def sorted_samples(scene: Normed) -> str:
    x = torch.cat(scene.data)
    level = torch.linspace(-2, 2, len(x)).reshape(-1, *[1] * (x.dim() - 1))
    scene.data = list((x + level).split(32))
    return str(scene.net.places[0])  # type: ignore[attr-defined]


@fault("ND712", Padded, PADDED.NETS)
def norms_that_know_no_mask(scene: Padded) -> str:
    torch.manual_seed(0)
    scene.put(scene.net())
    return str(scene.net.place)  # type: ignore[attr-defined]
