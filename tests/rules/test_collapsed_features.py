"""ND606: equal rows and rows on a line are found, likeness that untrained nets have is not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.probing.probe import probe
from normdoctor.probing.representation import RepresentationCollector, likeness


def made(*shape, n=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for _ in range(n)]


class Mlp(nn.Module):
    shape = (32, 24)

    def __init__(self, outputs=10):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 48))
        self.head = nn.Linear(48, outputs)

    def forward(self, x, fault=lambda h: h):
        return self.head(fault(self.body(x)))


class Convolutional(nn.Module):
    shape = (16, 3, 12, 12)

    def __init__(self, outputs=10):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3))
        self.head = nn.Linear(32, outputs)

    def forward(self, x, fault=lambda h: h):
        return {"out": self.head(fault(F.relu(self.convs(x)).mean((2, 3))))}


class Segmenting(nn.Module):
    shape = (4, 3, 12, 12)

    def __init__(self, outputs=10):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU())
        self.head = nn.Conv2d(16, outputs, 1)

    def forward(self, x, fault=lambda h: h):
        h = self.body(x)
        return self.head(fault(h.movedim(1, -1)).movedim(-1, 1))


class Transformer(nn.Module):
    shape = (8, 6, 24)

    def __init__(self, outputs=10):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Parameter(torch.randn(outputs, 24))

    def forward(self, x, fault=lambda h: h):
        return F.linear(fault(self.norm(self.layer(x))), self.head)


class Recurrent(nn.Module):
    shape = (6, 20, 24)

    def __init__(self, outputs=10):
        super().__init__()
        self.lstm = nn.LSTM(24, 32)
        self.head = nn.Linear(32, outputs)

    def forward(self, x, fault=lambda h: h):
        return self.head(fault(self.lstm(x)[0][-1]))


NETS = (Mlp, Convolutional, Segmenting, Transformer, Recurrent)


class Faulty(nn.Module):
    def __init__(self, net, fault):
        super().__init__()
        self.net, self.fault = net, fault

    def forward(self, x):
        return self.net(x, self.fault)


def constant(h):
    return h * 0 + 1


def nearly(h):
    return 1 + 1e-5 * h


def dead(h):
    return F.relu(h - 1000)


def line(h):
    return h.mean(-1, keepdim=True) * torch.linspace(-1, 1, h.shape[-1]) + 0.5


def found(model, data, **options):
    report = normdoctor.check(model, data[0], data=data, select="ND606", **options)
    assert [result.outcome for result in report.results] != ["skipped"]
    return [finding.message for finding in report.findings]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_healthy_and_planted(net, training):
    torch.manual_seed(0)
    data = made(*net.shape)
    assert found(net().train(training), data) == []
    for fault in (constant, nearly, dead):
        (message,) = found(Faulty(net(), fault).train(training), data)
        assert ("are all zero" if fault is dead else "are equal but for") in message
    if net is not Transformer:  # the mean over the features of a LayerNorm is zero
        (message,) = found(Faulty(net(), line).train(training), data)
        assert "lie on a line" in message


@pytest.mark.parametrize("net", [net for net in NETS if net is not Transformer])
def test_few_outputs_may_need_one_direction(net):
    assert found(Faulty(net(outputs=2), line), made(*net.shape)) == []


@pytest.mark.parametrize("net", NETS)
def test_inputs_that_are_alike_say_nothing(net):
    torch.manual_seed(0)
    one = torch.ones(net.shape)
    model = Faulty(net().eval(), constant)
    assert found(model, [one, one]) == []


@pytest.mark.parametrize("net", NETS)
def test_too_few_rows_say_nothing(net):
    x = torch.randn(2, *net.shape[1:])
    if net in (Mlp, Convolutional):
        assert found(Faulty(net(), constant), [x, x]) == []


@pytest.mark.parametrize("depth", [2, 5])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_untrained_nets_are_silent(depth, activation):
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(64, 64), activation())]
    assert found(nn.Sequential(*layers, nn.Linear(64, 10)), made(32, 64)) == []


def test_deep_he_initialized_nets_are_silent():
    torch.manual_seed(0)
    layers = []
    for _ in range(30):
        layer = nn.Linear(64, 64)
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    assert found(nn.Sequential(*layers, nn.Linear(64, 10)), made(32, 64)) == []


def test_a_trained_classifier_is_silent():
    torch.manual_seed(0)
    centres = 3 * torch.randn(5, 24)
    labels = torch.arange(200) % 5
    x = centres[labels] + 0.1 * torch.randn(200, 24)
    model = Mlp(5)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    assert found(model, [x[:100], x[100:]]) == []


def test_a_watch_keeps_bounded_memory():
    collector = RepresentationCollector()
    probe(Mlp(), made(32, 24, n=30), [collector])
    assert len(collector.tensors()) <= 16


def test_likeness_by_hand():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    assert likeness(rows) == {"cosine": pytest.approx(-1 / 3, abs=1e-5), "spread": 1.0, "rank": 2.0}
    assert likeness(torch.ones(5, 3, dtype=torch.float64)) == {"cosine": 1.0, "spread": 0.0, "rank": 0.0}
    assert likeness(torch.zeros(5, 3, dtype=torch.float64))["spread"] == 0.0
    line = torch.outer(torch.arange(6.0).double(), torch.ones(4).double())
    assert likeness(line)["rank"] == pytest.approx(1.0, abs=1e-3)
