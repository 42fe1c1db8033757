"""What dies or saturates in a watched training was alive at its start: activity is told of late looks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.probing.hooks import FIRST_MARK, Observer
from normdoctor.probing.plan import planned
from normdoctor.probing.units import UnitCollector


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act = nn.Linear(8, 32), nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(32, 4)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x):
        return {"logits": self.fc2(torch.relu(self.fc1(x)))}


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Conv1d(1, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(F.relu(self.fc1(x.unsqueeze(1))).mean(2))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fc1, self.out = nn.Linear(8, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.out(self.fc1(x).relu_()))


NETS = [Mlp, Functional, Convolutional, Residual]
each = pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__.lower())


def watched(model, steps, at=None, harm=None):
    """The report of a training in which a bad step does `harm` to the first layer."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for step in range(steps):
            if step == at:
                with torch.no_grad():
                    harm(model.fc1)
            x = torch.randn(256, 8)
            out = model(x)
            out = out["logits"] if isinstance(out, dict) else out
            loss = F.cross_entropy(out, (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    return w.report()


def codes(report):
    return {finding.code: finding for finding in report.findings if finding.severity != "info"}


def kill(layer, units=32):
    layer.bias[:units] = -1000.0


@each
def test_a_layer_that_dies_in_a_training(make):
    found = codes(watched(make(), 40, 10, kill))
    assert "ND602" in found
    assert found["ND602"].evidence["batches"] == 40 - 16


@each
def test_units_that_die_in_a_training(make):
    found = codes(watched(make(), 40, 10, lambda layer: kill(layer, 12)))
    assert found["ND601"].evidence["dead"] >= 12


@each
def test_a_healthy_training_is_silent(make):
    assert not codes(watched(make(), 40))


def test_a_layer_that_comes_alive_is_silent():
    model = Mlp()
    with torch.no_grad():
        kill(model.fc1)

    def heal(layer):
        layer.bias.zero_()

    assert not {"ND601", "ND602"} & set(codes(watched(model, 40, 10, heal)))


def test_sigmoids_that_saturate_in_a_training():
    class Net(Mlp):
        def __init__(self):
            super().__init__()
            self.act = nn.Sigmoid()

    def harm(layer):
        layer.weight.mul_(1000.0)

    assert "ND603" not in codes(watched(Net(), 40))
    assert "ND603" in codes(watched(Net(), 40, 10, harm))


def test_activity_is_that_since_the_last_mark_but_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    data = torch.randn(5 * FIRST_MARK, 10, 4)
    nn.init.zeros_(model[0].weight[0, 1:])
    nn.init.ones_(model[0].weight[0, :1])
    data[2 * FIRST_MARK :, :, 0] = -9.0  # the first unit falls silent
    observer = Observer(model, planned({"units"}))
    observer.attach()
    for looks, x in enumerate(data, start=1):
        model(x)
        observer.looked(looks)
    observer.detach()
    found = {one["module"]: one for one in observer.read()["units"].values()}
    late = model(data[2 * FIRST_MARK :]).detach()
    relu, linear = found["1"], found["0"]
    assert relu["batches"] == 3 * FIRST_MARK
    assert relu["observations"] == 3 * FIRST_MARK * 10
    assert relu["active"] == pytest.approx((late > 0).double().mean((0, 1)).tolist(), abs=1e-6)
    # Everything else is told of all looks.
    assert linear["batches"] == len(data)
    assert relu["unit_mean"] == pytest.approx(model(data).mean((0, 1)).tolist(), rel=1e-4)


def test_units_that_are_as_they_were_are_told_of_by_all_looks():
    """What was dead from the start has more evidence than that since the mark."""
    observer = Observer(nn.Sequential(nn.ReLU()), [UnitCollector()])
    observer.attach()
    for looks in range(1, 4 * FIRST_MARK + 1):
        observer.model(torch.tensor([[-1.0, 1.0], [-1.0, 2.0]]))
        observer.looked(looks)
    observer.detach()
    site = observer.read()["units"]["0:relu"]
    assert (site["batches"], site["observations"]) == (4 * FIRST_MARK, 8 * FIRST_MARK)
    assert site["active"] == [0.0, 1.0]


def test_a_site_that_runs_no_more():
    """An expert that is no longer chosen is told of by all that was seen of it."""
    collector = UnitCollector()
    observer = Observer(nn.Sequential(nn.ReLU()), [collector])
    observer.attach()
    for looks in range(1, 4 * FIRST_MARK + 1):
        observer.model(torch.ones(2, 3) if looks < FIRST_MARK else -torch.ones(2, 3))
        observer.looked(looks)
    observer.detach()
    site = observer.read()["units"]["0:relu"]
    assert site["batches"] == 2 * FIRST_MARK
    collector.mark()
    collector.mark()  # nothing ran in between
    site = observer.read()["units"]["0:relu"]
    assert site["batches"] == 4 * FIRST_MARK
