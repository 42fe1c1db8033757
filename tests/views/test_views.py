"""Views: figures of charts and tables, against the same figures taken by hand with torch."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.config import Settings
from normdoctor.facts import Facts, Location
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.running import check_facts
from normdoctor.testing import FactsBuilder
from normdoctor.views.activity import CLASSES, activity_of, classes
from normdoctor.views.gradients import gradients_of
from normdoctor.views.neighbourhood import MOST, neighbourhoods
from normdoctor.views.norms import norm_rows
from normdoctor.views.runningstats import running_stats


def summary(model, data, **settings):
    (target,) = normdoctor.check(model, data[0], data=data, **settings).targets
    return target


def finding(*modules, **fields):
    known = {"code": "ND101", "name": "x", "severity": Severity.WARNING, "confidence": Confidence.HIGH}
    return Finding(message="x", modules=modules, **(known | fields))


def test_units_by_how_often_they_are_active():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU6())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-99, -99, 99, 0, 0, 0, 0, -1.5]))
        model[2].weight[:, 2] = 0  # of the unit that is always on
        model[2].bias.copy_(torch.tensor([99, 0, 0, 0, 0, 0.0]))
        model[4].bias.copy_(torch.tensor([99, 0, 0, 0, 0.0]))
    data = [torch.randn(500, 4) for _ in range(2)]
    relu, tanh, relu6 = summary(model, data).activity
    with torch.no_grad():
        active = (model[:2](torch.cat(data)) > 0).double().mean(0)
    bounds = (-1.0, 0.0, 0.01, 0.1, 0.5, 0.9, 1.0)
    below = [(active <= 0).sum(), *((active < bound).sum() for bound in bounds[2:]), len(active)]
    expected = [int(end) - int(start) for start, end in zip([0, *below], below, strict=False)]
    assert [round(8 * share) for share in relu.shares] == expected
    assert len(relu.shares) == len(CLASSES)
    assert relu.shares[0] == 0.25 == relu.dead
    assert (relu.units, relu.observations, relu.batches, relu.depth) == (8, 1000, 2, 0)
    assert (relu.saturated, relu.clipped) == (None, None)
    assert tanh.dead is None
    assert tanh.saturated == pytest.approx(1 / 6)
    assert relu6.clipped == pytest.approx(1 / 5)
    assert relu6.saturated is None


def test_the_edges_of_the_classes():
    assert classes([0.0, 0.001, 0.01, 0.099, 0.1, 0.5, 0.9, 0.999, 1.0, 1.0]) == (
        *(0.1, 0.1, 0.2, 0.1, 0.1, 0.2, 0.2),
    )
    assert sum(classes([0.3])) == 1
    assert sum(classes([])) == 0


def test_what_is_always_above_zero_has_no_classes():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Softplus())
    sigmoid, softplus = summary(model, [torch.randn(64, 4)] * 2).activity
    assert sigmoid.shares == softplus.shares == ()
    assert sigmoid.saturated == 0
    assert softplus.saturated is None


def test_running_statistics_against_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    norm = model[1]
    data = [torch.randn(16, 3, 8, 8) for _ in range(3)]
    with torch.no_grad():
        values = model[0](torch.cat(data)).transpose(0, 1).flatten(1)
        norm.running_mean.copy_(values.mean(1) + torch.tensor([0.0, 0.3, 0.1, -0.2]))
        norm.running_var.copy_(values.var(1, correction=0) * torch.tensor([1.0, 2.0, 0.1, 1.0]))
        norm.num_batches_tracked.fill_(1000)
    (found,) = summary(model, data).running_stats
    shift = (values.mean(1) - norm.running_mean).abs() / (values.var(1, correction=0) + norm.eps).sqrt()
    ratio = (values.var(1, correction=0) + norm.eps) / (norm.running_var + norm.eps)
    assert found.worst_shift == pytest.approx(shift.max().item(), rel=1e-3)
    assert found.worst_shift_channel == int(shift.argmax())
    assert found.shift == pytest.approx(shift.double().quantile(0.5).item(), rel=1e-3)
    assert found.worst_ratio == pytest.approx(ratio[2].item(), rel=1e-3)
    assert found.worst_ratio_channel == 2
    assert found.ratio == pytest.approx(ratio.double().quantile(0.5).item(), rel=1e-3)
    assert (found.module, found.channels, found.batches, found.training) == ("1", 4, 3, False)
    assert found.initial == 0


def test_a_norm_that_was_never_updated():
    (found,) = summary(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).eval(), [torch.randn(32, 4)] * 2
    ).running_stats
    assert found.initial == 1


@pytest.mark.parametrize(("mean", "variance"), [(math.nan, 1.0), (0.5, math.inf), (0.5, -4.0), (0.5, 0.0)])
def test_statistics_that_are_spoilt_raise_nothing(mean, variance):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, eps=0.0)).eval()
    model[1].running_mean.fill_(mean)
    model[1].running_var.fill_(variance)
    target = summary(model, [torch.randn(32, 4)] * 2)
    assert len(target.running_stats) <= 1
    assert target.inventory


def test_gradients_by_depth():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4), nn.Linear(4, 4))
    model[3].requires_grad_(False)
    x = torch.randn(64, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with normdoctor.watch(model, every=1, on_finding="ignore") as watch:
        for scale in (1.0, 2.0):
            loss = scale * model(x).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    (target,) = watch.report().targets
    found = {one.parameter: one for one in target.gradients}
    assert [name for name in found if "bias" in name] == []
    assert next(iter(found)) == "0.weight"
    first = model[0].weight.grad.pow(2).mean().sqrt().item()  # that of the second step
    assert found["0.weight"].high == pytest.approx(first, rel=1e-4)
    assert found["0.weight"].low == pytest.approx(first / 2, rel=1e-4)
    assert found["0.weight"].rms == pytest.approx(first * math.sqrt(1.25 / 2), rel=1e-4)
    assert found["0.weight"].seen == found["0.weight"].looks == 2
    frozen = found.get("3.weight")
    assert frozen is None or frozen.rms is None
    assert [one.depth for one in target.gradients] == list(range(len(found)))


def test_the_inventory_of_norms():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(
                nn.GroupNorm(4, 16), nn.BatchNorm2d(16, momentum=None), nn.InstanceNorm2d(16), nn.Flatten(),
                nn.Linear(16 * 9, 8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8),
            )  # fmt: skip
            self.spare = nn.BatchNorm1d(3).eval()
            self.gain = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return nn.functional.layer_norm(self.layers(x), (8,), self.gain, None, 1e-6)

    (target,) = normdoctor.check(Net(), torch.randn(4, 16, 3, 3)).targets
    assert [
        (one.type, one.size, one.groups, one.eps, one.momentum, one.affine, one.running, one.mode, one.calls)
        for one in target.inventory
    ] == [
        ("GroupNorm", (16,), 4, 1e-5, None, True, False, "train", 1),
        ("BatchNorm2d", (16,), 0, 1e-5, None, True, True, "train", 1),
        ("InstanceNorm2d", (16,), 0, 1e-5, None, False, False, "train", 1),
        ("LayerNorm", (8,), 0, 1e-5, None, False, False, "train", 1),
        ("RMSNorm", (8,), 0, None, None, True, False, "train", 1),
        ("layer_norm", (8,), 0, 1e-6, None, True, False, "", 1),
        ("BatchNorm1d", (3,), 0, 1e-5, 0.1, True, True, "eval", 0),
    ]
    assert sum(target.norms.values()) == len(target.inventory)
    assert target.inventory[0].output == (4, 16, 3, 3)
    assert target.inventory[1].location.file == __file__
    assert [one.parameters for one in target.inventory] == [32, 32, 0, 0, 8, 8, 6]


def test_a_norm_by_hand_is_in_the_inventory():
    build = FactsBuilder()
    x = build.input(8, 16)
    build.module("own", "MyNorm", role="other", parameters=("own.gain",), calls=1)
    gain = build.parameter("own", "gain", 16)
    mean = build.op("mean", x, shape=(8, 1), scope="own")
    out = build.op("sub", x, mean, shape=(8, 16), scope="own", parameters=(gain,))
    build.norm_by_hand("layer_norm", x, out, eps=1e-6, scales=(gain,))
    (row,) = norm_rows(build.graph(out))
    assert (row.type, row.kind, row.size, row.eps) == ("MyNorm (layer_norm)", "layer_norm", (16,), 1e-6)
    assert row.by_hand
    assert row.affine
    assert row.parameters == 16


def residual():
    build = FactsBuilder()
    x = build.input(4, 8, 8, 8)
    stem = build.layer("stem", "Conv2d", x, shape=(4, 8, 8, 8), weight=(8, 8, 1, 1))
    conv = build.layer("block.conv", "Conv2d", stem, shape=(4, 8, 8, 8), weight=(8, 8, 1, 1))
    norm = build.layer("block.norm", "BatchNorm2d", conv, shape=(4, 8, 8, 8), weight=(8,), bias=(8,))
    relu = build.op("relu", norm, shape=(4, 8, 8, 8), scope="block", location=Location("model.py", 77))
    added = build.op("add", relu, stem, shape=(4, 8, 8, 8), scope="block")
    pooled = build.op("mean", added, shape=(4, 8))
    return build.graph(build.layer("head", "Linear", pooled, shape=(4, 2), weight=(2, 8)))


def test_two_steps_up_and_down():
    graph = residual()
    (found,) = neighbourhoods(graph, [finding("block.norm", "block.gone")])
    names = [(one.kind, one.module) for one in found.nodes]
    assert names == [
        ("conv2d", "stem"), ("conv2d", "block.conv"), ("batch_norm", "block.norm"),
        ("relu", "block"), ("add", "block"),
    ]  # fmt: skip
    assert found.edges == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4))
    assert [one.chosen for one in found.nodes] == [False, False, True, False, False]
    assert found.nodes[2].shape == (4, 8, 8, 8)
    assert [one.function for one in found.nodes] == [False, False, False, True, True]
    assert (found.above, found.below, found.places) == (1, 1, 1)


def test_places_of_findings():
    graph = residual()
    whole = neighbourhoods(
        graph,
        [
            finding("block", location=Location("model.py", 77)),
            finding("", location=Location("model.py", 77)),
            finding("block"),
            finding("nowhere"),
            finding(),
        ],
    )
    at_line, of_model, block = whole
    assert [one.kind for one in at_line.nodes if one.chosen] == ["relu"]
    assert [one.kind for one in of_model.nodes if one.chosen] == ["relu"]
    assert block.module == "block.conv"
    assert [one.kind for one in block.nodes if one.chosen] == ["conv2d", "add"]
    assert neighbourhoods(Graph(FactsBuilder().facts()), [finding("block")]) == ()


def test_a_neighbourhood_is_bounded_and_says_how_much_more_there_is():
    build = FactsBuilder()
    x = build.input(4, 8)
    hub = build.layer("hub", "Linear", x, shape=(4, 8), weight=(8, 8))
    readers = [build.op("relu", hub, shape=(4, 8)) for _ in range(50)]
    graph = build.graph(build.op("cat", *readers, shape=(4, 400)))
    (found,) = neighbourhoods(graph, [finding("hub")])
    assert len(found.nodes) == MOST
    assert found.nodes[0].role == "input"
    assert found.below == 50 - (MOST - 2) + 1  # and what reads those that are shown


def test_without_views_there_are_findings_only():
    build = FactsBuilder()
    norm = build.layer("bn", "BatchNorm2d", build.input(4, 3, 8, 8), shape=(4, 3, 8, 8), weight=(3,))
    facts = [build.facts(norm)]
    settings = Settings(select=("ND5",))
    assert check_facts(facts, settings).targets[0].inventory
    bare = check_facts(facts, settings, views=False)
    assert bare.targets[0].inventory == ()
    assert bare.targets[0].norms == {"BatchNorm2d": 1}


def test_they_cost_little():
    """A quarter of a second for a thousand norms, which measured 20 ms: nothing in here is quadratic."""
    build = FactsBuilder()
    last = build.input(4, 8)
    for place in range(1000):
        last = build.layer(f"blocks.{place}.norm", "LayerNorm", last, shape=(4, 8), weight=(8,), bias=(8,))
        last = build.layer(f"blocks.{place}.fc", "Linear", last, shape=(4, 8), weight=(8, 8), bias=(8,))
    graph = build.graph(last)
    findings = [finding(f"blocks.{place}.fc", code=f"ND{place}") for place in range(100)]
    start = time.process_time()
    assert len(norm_rows(graph)) == 1000
    assert len(neighbourhoods(graph, findings)) == 100
    assert (activity_of(graph), gradients_of(graph.facts), running_stats(graph)) == ((), (), ())
    assert time.process_time() - start < 0.25


def test_parameters_and_the_end_of_the_graph_are_left_out():
    build = FactsBuilder()
    scale = build.op("get_attr", shape=(8,), role="parameter")
    x = build.input(4, 8)
    hub = build.op("mul", x, scale, shape=(4, 8), scope="own")
    graph = build.graph(build.op("relu", hub, shape=(4, 8)))
    (found,) = neighbourhoods(graph, [finding("own")])
    assert [one.kind for one in found.nodes] == ["input", "mul", "relu"]
    assert (found.above, found.below) == (0, 0)


@pytest.mark.parametrize("variance", [math.inf, 1e300, math.nan])
def test_figures_of_a_file_may_be_anything(variance):
    figures = {
        "module": "bn", "kind": "batch_norm", "call": 0, "role": "norm", "units": 2, "observations": 8,
        "batches": 2, "tracked": True, "training": False, "eps": 0.0, "momentum": 0.1,
        "batches_tracked": None,
        "mean": [0.0, 1.0], "variance": [1e-30, 1.0], "running_mean": [0.0, 0.0],
        "running_var": [variance, 1.0], "batch_variance": [1e-30, 1.0],
    }  # fmt: skip
    (found,) = running_stats(Graph(Facts(target="x", measurements={"batch_norm": {"bn": figures}})))
    assert found.worst_shift == 1.0
    if variance == variance:  # noqa: PLR0124
        assert found.worst_ratio_channel == 0
