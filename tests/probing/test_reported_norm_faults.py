"""Reported faults of normalization that show as a model runs, and their mended twins."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor


def codes(model, data, **settings):
    report = normdoctor.check(model, data[0], data=data, select=["ND7"], **settings)
    assert not report.problems
    return {finding.code for finding in report.findings}


class Detector(nn.Module):
    """A backbone and a head with BatchNorm, as in detection with one or two images a device."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), norm(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), norm(32), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.context = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Conv2d(32, 32, 1, bias=False), norm(32), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        x = self.backbone(x)
        context = F.interpolate(self.context(x), x.shape[-2:])
        return self.head(x + context)


@pytest.mark.parametrize("size", [1, 2])
def test_sb04_one_or_two_images_a_device(size):
    torch.manual_seed(0)
    levels = torch.rand(16 * size, 1, 1, 1) + 0.5
    data = list((torch.randn(16 * size, 3, 32, 32) * levels).split(size))
    assert "ND701" in codes(Detector(), data)
    assert not codes(Detector(lambda channels: nn.GroupNorm(8, channels)), data)
    frozen = Detector().eval()
    assert not codes(frozen, data)


def test_sb04_in_a_watched_training():
    torch.manual_seed(0)
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = []
    with normdoctor.watch(model, every=1, on_finding=found.append) as w:
        for _ in range(12):
            loss = model(torch.randn(2, 3, 32, 32)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    assert any(one.code == "ND701" and "context.2" in one.modules for one in found)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
        self.out = nn.Linear(32, 1)

    def forward(self, x):
        x = torch.tanh(self.bn1(self.fc1(x)))
        return self.out(torch.tanh(self.bn2(self.fc2(x))))


def windows(mixed):
    """Windows of a slow walk, 180 a batch: neighbours, or mixed."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(3000, generator=generator).cumsum(0) / 10
    found = walk.unfold(0, 12, 1)[: 180 * 16]
    if mixed:
        found = found[torch.randperm(len(found), generator=generator)]
    return list(found.split(180))


@pytest.mark.parametrize("mixed", [False, True])
def test_sb06_neighbouring_windows_form_a_batch(mixed):
    torch.manual_seed(0)
    model, data = Forecaster(), windows(mixed)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(10):
        for x in data:
            loss = (model(x[:, :]).squeeze(1) - x[:, -1]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for training in (True, False):
        found = codes(model.train(training), data)
        assert found == (set() if mixed else {"ND702", "ND708"})


class Attacked(nn.Module):
    """A wrapper that keeps its network from `eval()`: it is held in a list."""

    def __init__(self, network, hidden):
        super().__init__()
        self.network = network if not hidden else [network]

    def forward(self, x):
        network = self.network[0] if isinstance(self.network, list) else self.network
        return network(x * 2 - 1)


class Sticky(nn.Sequential):
    """`train` is overridden and ignores the mode."""

    def train(self, mode=True):
        return super().train(True)


@pytest.mark.parametrize("how", ["hidden", "sticky"])
def test_md08_predictions_depend_on_the_size_of_the_batch(how):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    network = nn.Sequential(*layers)
    data = [torch.rand(16, 3, 8, 8) * torch.rand(16, 1, 1, 1) for _ in range(4)]
    network(data[0])
    faulty = Attacked(network, hidden=True) if how == "hidden" else Sticky(*layers)
    assert "ND705" in codes(faulty, data)
    assert not codes(Attacked(network, hidden=False).eval(), data) & {"ND705"}


@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_md12_no_running_statistics_at_inference(track, training):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(4, 8, 3, bias=False), nn.BatchNorm1d(8, track_running_stats=track), nn.ReLU(), nn.Flatten()
    )
    data = [torch.randn(32, 4, 10) * torch.rand(32, 1, 1) for _ in range(4)]
    found = codes(model.train(training), data)
    assert found == (set() if track else {"ND705"})


@pytest.mark.parametrize("dim", [0, 1])
def test_sx04_attention_softmax_over_the_batch(dim):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.score, self.fc = nn.Linear(8, 1), nn.Linear(8, 3)

        def forward(self, x):
            weights = F.softmax(self.score(x), dim=dim)
            return self.fc((weights * x).sum(1))

    torch.manual_seed(0)
    data = [torch.randn(6, 5, 8) for _ in range(2)]
    assert codes(Pooled(), data) == ({"ND705"} if dim == 0 else set())
