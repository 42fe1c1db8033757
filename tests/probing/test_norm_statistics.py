"""What is measured of a BatchNorm, against the same by hand in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from normdoctor.probing.hooks import Observer
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.probe import probe


class Functional(nn.Module):
    """A BatchNorm as a function, over buffers of one's own."""

    def __init__(self, channels: int, flipped: bool = False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))
        self.flipped = flipped

    def forward(self, x):
        if self.flipped:
            return torch.batch_norm(x, None, None, self.mean, self.var, self.training, 0.1, 1e-5, False)
        return F.batch_norm(x, self.mean, self.var, training=self.training, momentum=0.1)


def measured(model, data, budget=None):
    return probe(model, data, [NormCollector(budget)])["batch_norm"]


def by_hand(x):
    """(population mean, biased variance, unbiased variance of the samples' means)"""
    x = x.double().flatten(2)
    return x.mean((0, 2)), x.var((0, 2), correction=0), x.mean(2).var(0)


LAYERS = [
    lambda: nn.BatchNorm2d(5),
    lambda: nn.SyncBatchNorm(5),
    lambda: nn.BatchNorm2d(5, track_running_stats=False),
    lambda: nn.BatchNorm2d(5, momentum=None),
    lambda: Functional(5),
    lambda: Functional(5, flipped=True),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_against_float64(layer, training):
    torch.manual_seed(0)
    data = [torch.randn(n, 5, 4, 4) * 3 + torch.arange(5.0).reshape(5, 1, 1) for n in (8, 8, 3)]
    (site,) = measured(nn.Sequential(layer()).train(training), data).values()
    mean, variance, sample_variance = by_hand(torch.cat(data))
    assert site["mean"] == pytest.approx(mean.tolist(), rel=1e-5)
    assert site["variance"] == pytest.approx(variance.tolist(), rel=1e-5)
    assert site["sample_variance"] == pytest.approx(sample_variance.tolist(), rel=1e-5)
    means = torch.stack([x.double().mean((0, 2, 3)) for x in data])
    assert site["between"] == pytest.approx(means.var(0).tolist(), rel=1e-5)
    spread = [x.double().mean((2, 3)).var(0) / len(x) for x in data]
    assert site["expected"] == pytest.approx(torch.stack(spread).mean(0).tolist(), rel=1e-5)
    within = [x.double().var((0, 2, 3), correction=0) for x in data]
    assert site["batch_variance"] == pytest.approx(torch.stack(within).mean(0).tolist(), rel=1e-5)
    assert (site["batch_sizes"], site["positions"]) == ({"3": 1, "8": 2}, 16)
    assert (site["observations"], site["batches"], site["units"]) == (19, 3, 5)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (6, 5, 2, 3), (6, 5, 2, 3, 2)])
def test_ranks_of_inputs(shape):
    x = torch.randn(shape)
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](5)
    (site,) = measured(layer, [x]).values()
    assert site["positions"] == x[0, 0].numel()
    assert site["variance"] == pytest.approx(by_hand(x.unsqueeze(-1))[1].tolist(), rel=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_budget_reads_some_samples_and_the_buffers_say_the_rest(layer):
    torch.manual_seed(0)
    data = [torch.randn(32, 5, 4, 4) * 0.3 + 2 for _ in range(3)]
    model = layer()
    (site,) = measured(model, data, budget=8 * 5 * 16).values()
    assert site["observations"] == 24
    if site["tracked"]:
        variances = torch.stack([x.double().var((0, 2, 3), correction=0) for x in data]).mean(0)
        means = torch.stack([x.double().mean((0, 2, 3)) for x in data])
        assert site["batch_variance"] == pytest.approx(variances.tolist(), rel=1e-4)
        assert site["between"] == pytest.approx(means.var(0).tolist(), rel=1e-3)
    spread = torch.stack([x.double().mean((2, 3)).var(0) for x in data]).mean(0)
    assert site["sample_variance_within"] == pytest.approx(spread.tolist(), rel=0.8)


def test_a_budget_moves_over_the_samples():
    seen = []

    class Spy(NormCollector):
        def after(self, call, before):
            super().after(call, before)
            seen.append(self._pending[-1].means[:, 0].tolist())

    x = torch.arange(8.0).reshape(8, 1).expand(8, 4)
    probe(nn.BatchNorm1d(4), [x] * 3, [Spy(16)])
    assert seen == [[0, 2, 4, 6], [1, 3, 5, 7], [0, 2, 4, 6]]


def test_running_statistics_in_front_of_the_first_and_the_last_batch():
    torch.manual_seed(0)
    data = [torch.randn(16, 3) + 1 for _ in range(4)]
    norm = nn.BatchNorm1d(3)
    (site,) = measured(norm, data).values()
    assert site["running_mean"] == [0, 0, 0]
    assert site["running_var"] == [1, 1, 1]
    twin = nn.BatchNorm1d(3)
    for x in data[:3]:
        twin(x)
    assert site["last_running_mean"] == pytest.approx(twin.running_mean.tolist(), rel=1e-5)
    assert site["batches_tracked"] == [0, 3]
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_recent_figures_are_of_the_last_batches():
    norm = nn.BatchNorm1d(1, momentum=0.5)
    far, near = torch.tensor([[9.0], [11.0]]), torch.tensor([[-1.0], [1.0]])
    (site,) = measured(norm, [near] * 4).values()
    assert site["recent"]["gap"] == [0]
    assert site["z"] == [0]
    (site,) = measured(norm.eval(), [near] * 4 + [far] * 60).values()
    assert site["recent"]["gap"][0] == pytest.approx(10, rel=0.01)
    assert site["z"][0] == pytest.approx(10, rel=0.01)  # samples vary by 2, so the mean of two by 1


def test_a_layer_that_is_called_twice_is_two_sites():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.norm(x) + 1)

    found = measured(Twice(), [torch.randn(8, 3)])
    assert list(found) == ["norm:batch_norm", "norm:batch_norm#1"]
    assert found["norm:batch_norm#1"]["mean"] == pytest.approx([1, 1, 1], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    x = torch.randn(8, 3, 4).to(dtype)
    (site,) = measured(nn.BatchNorm1d(3).to(dtype), [x]).values()
    assert site["variance"] == pytest.approx(by_hand(x)[1].tolist(), rel=1e-4)


def test_channels_last():
    x = torch.randn(8, 3, 4, 4)
    norm = nn.BatchNorm2d(3)
    assert measured(norm, [x]) == measured(norm, [x.contiguous(memory_format=torch.channels_last)])


def test_batches_with_nan_are_left_out():
    good, bad = torch.randn(8, 3), torch.full((8, 3), torch.nan)
    alone, both = (
        next(iter(measured(nn.BatchNorm1d(3).eval(), d).values())) for d in ([good], [bad, good, bad])
    )
    assert both["bad_batches"] == 2
    assert both["variance"] == alone["variance"]
    assert both["batches"] == 1


def test_large_means_keep_their_digits():
    torch.manual_seed(0)
    x = torch.randn(64, 2, 8) * 1e-2 + 100
    (site,) = measured(nn.BatchNorm1d(2), [x[:32], x[32:]]).values()
    assert site["variance"] == pytest.approx(by_hand(x)[1].tolist(), rel=1e-3)


class NoReads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a value was read"
        assert "nonzero" not in str(func), "a value was read"
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_on_the_way():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Functional(4), nn.SyncBatchNorm(4))
    observer = Observer(model, [NormCollector(8)])
    observer.attach()
    with NoReads():
        for _ in range(3):
            model(torch.randn(8, 4))
    observer.detach()
    assert len(observer.read()["batch_norm"]) == 3
