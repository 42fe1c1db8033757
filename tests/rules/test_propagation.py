"""Predicted against measured mean squares, in real networks on standard normal input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor.graph import Graph
from normdoctor.loading.target import from_object
from normdoctor.rules.moments import moments
from normdoctor.rules.propagation import predict
from normdoctor.rules.weights import uses
from normdoctor.tracing.examine import Request, examine

#: Predictions hold within this factor, for every layer of every network below.
FACTOR = 3.0
IMAGE = (16, 3, 32, 32)


def compared(model, *shape):
    """Predicted / measured mean square of every leaf module, and the share of nodes that are predicted."""
    x = torch.randn(shape)
    facts = examine(from_object(model), Request(inputs=x, requirements=frozenset({"weights"}))).facts
    graph = Graph(facts)
    signals = predict(graph)
    measured = {}

    def hook(path):
        def note(module, args, result):
            if isinstance(result, torch.Tensor):
                measured.setdefault(path, float(result.double().square().mean()))

        return note

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    ratios = {
        node.module: signals[node.index].square / measured[node.module]
        for node in graph.nodes
        if node.module in measured and signals[node.index] is not None and measured[node.module] > 1e-30
    }
    steps = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    return ratios, sum(signals[node.index] is not None for node in steps) / len(steps)


def mlp(activation, init, depth=10, width=256):
    layers = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        init(layer.weight)
        layers += [layer, activation()]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(8))
        self.scale = nn.Parameter(torch.full((32, 1, 1), 0.5))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.convs:
            x = x + self.scale * conv(F.relu(x))
        return self.head(x.mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 64)
        self.norm1, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)
        self.mix = nn.Parameter(torch.randn(64, 64) / 8)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.norm1(x) @ self.mix
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def vgg():
    layers, width = [], 3
    for out in (32, 64, 128):
        layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def batchnorms():
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=4), nn.SiLU()),
        *(nn.AvgPool2d(2), nn.BatchNorm2d(32), nn.Hardswish(), nn.ConvTranspose2d(32, 16, 4, stride=2)),
        *(nn.LeakyReLU(0.2), nn.GroupNorm(4, 16), nn.Dropout(0.3), nn.Conv2d(16, 8, 1), nn.Tanh()),
    )


init = nn.init
NETWORKS = {
    "relu he": (lambda: mlp(nn.ReLU, init.kaiming_normal_), (512, 256)),
    "tanh xavier": (lambda: mlp(nn.Tanh, init.xavier_normal_), (512, 256)),
    "gelu small": (lambda: mlp(nn.GELU, lambda w: init.normal_(w, 0, 0.02)), (512, 256)),
    "selu lecun": (
        lambda: mlp(nn.SELU, lambda w: init.kaiming_normal_(w, nonlinearity="linear")),
        (512, 256),
    ),
    "silu orthogonal": (lambda: mlp(nn.SiLU, init.orthogonal_), (512, 256)),
    "sigmoid": (lambda: mlp(nn.Sigmoid, init.xavier_uniform_), (512, 256)),
    "default": (lambda: mlp(nn.ReLU, lambda w: None), (512, 256)),
    "exploding": (lambda: mlp(nn.ReLU, init.normal_), (512, 256)),
    "vgg": (vgg, IMAGE),
    "residual": (Residual, IMAGE),
    "transformer": (Transformer, (16, 10, 12)),
    "batchnorms": (batchnorms, IMAGE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_hold(name):
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    ratios, known = compared(build(), *shape)
    assert known > 0.95, "all of these steps are known"
    assert len(ratios) >= 3
    for path, ratio in ratios.items():
        assert 1 / FACTOR < ratio < FACTOR, f"{path}: predicted {ratio:.2f} times what was measured"


def test_batchnorm_in_eval_mode_uses_its_running_statistics():
    torch.manual_seed(0)
    model = batchnorms()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(4.0)
    ratios, _ = compared(model.eval(), *IMAGE)
    assert all(1 / FACTOR < ratio < FACTOR for ratio in ratios.values())


@pytest.mark.parametrize(
    ("kind", "mean", "square"),
    [
        ("relu", 0.3989, 0.5), ("gelu", 0.2821, 0.4252), ("silu", 0.2066, 0.3558), ("elu", 0.1605, 0.6450),
        ("selu", 0.0, 1.0), ("tanh", 0.0, 0.3943), ("sigmoid", 0.5, 0.2934), ("mish", 0.2404, 0.4523),
    ],
)  # fmt: skip
def test_gains_are_exact(kind, mean, square):
    found = moments(kind, {}, 0.0, 1.0, 0.0)
    assert (found.mean, found.square) == pytest.approx((mean, square), abs=2e-3)


@pytest.mark.parametrize("kind", ["relu", "gelu", "tanh", "leaky_relu", "hardswish"])
@pytest.mark.parametrize(
    ("mean", "variance", "correlation"), [(0.0, 1.0, 0.5), (-1.0, 2.0, 0.9), (2.0, 0.5, 0.1)]
)
def test_moments_against_samples(kind, mean, variance, correlation):
    torch.manual_seed(0)
    shared, own = torch.randn(400_000), torch.randn(2, 400_000)
    z = mean + math.sqrt(variance) * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
    first, second = getattr(F, kind)(z)
    found = moments(kind, {}, mean, variance, correlation)
    assert found.mean == pytest.approx(float(first.mean()), abs=0.01)
    assert found.square == pytest.approx(float(first.square().mean()), rel=0.02)
    assert found.cross == pytest.approx(float((first * second).mean()), rel=0.1, abs=0.02)


class Fans(nn.Module):
    """One weight in each of the ways in which a graph can use it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(n, m)) for n, m in ((8, 20), (30, 20), (30, 6)))
        self.conv = nn.Conv2d(6, 12, 3, groups=3)
        self.up = nn.ConvTranspose2d(12, 5, 4, stride=2)
        self.mask = nn.Parameter(torch.randn(5, 5))

    def forward(self, x):
        x = F.linear(x @ self.a, self.b)
        x = torch.einsum("bi,ij->bj", x, self.c)
        x = self.up(self.conv(x[..., None, None].expand(-1, -1, 5, 5)))
        return x.mean((2, 3)) @ torch.softmax(self.mask, 0)


def test_fans_follow_the_use():
    facts = examine(from_object(Fans()), Request(inputs=torch.zeros(2, 8))).facts
    graph = Graph(facts)
    found = {use.parameter.name: use for node in graph.nodes for use in uses(graph, node)}
    sizes = {name: (use.fan_in, use.fan_out, use.units) for name, use in found.items()}
    assert sizes == {
        "a": (8, 20, 20),
        "b": (20, 30, 30),
        "c": (30, 6, 6),
        "conv.weight": (18, 36, 4),
        "up.weight": (12 * 16 / 4, 5 * 16, 5),
        "mask": (5, 5, 5),
    }
    assert (found["a"].axis, found["b"].axis) == (1, 0)
    assert [name for name, use in found.items() if not use.direct] == ["mask"]
