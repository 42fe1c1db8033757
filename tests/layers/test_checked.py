"""normdoctor finds nothing wrong with its own layers, and knows them as norms."""

import torch
from torch import nn

import normdoctor
from normdoctor import layers


def test_own_layers_in_a_check():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        layers.BatchNorm2d(16, activation="relu"),
        nn.Conv2d(16, 8, 3),
        layers.FilterResponseNorm(8),
        nn.Conv2d(8, 8, 3),
        layers.LayerNorm2d(8),
        nn.Conv2d(8, 8, 3),
        layers.GroupNorm(2, 8, activation="silu"),
        nn.Conv2d(8, 8, 3, bias=False),
        layers.FrozenBatchNorm(8),
    )
    report = normdoctor.check(net, torch.randn(4, 3, 18, 18))
    assert [finding.code for finding in report.findings if finding.severity != "info"] == []
    assert "ND901" not in {finding.code for finding in report.findings}
    assert all(layer.statistics.mean_square is None for layer in net if hasattr(layer, "statistics"))


def test_measuring_goes_through_the_layers_of_one_rank():
    """A measurement lets each rank of a SyncBatchNorm work alone; activation and residual stay."""
    layer = layers.SyncBatchNorm(4, activation="relu")
    x = torch.randn(3, 4, 5)
    assert torch.equal(layer.alone(x, x), layers.BatchNorm1d(4, activation="relu")(x, x))


def test_measuring_leaves_what_a_layer_kept():
    net = nn.Sequential(nn.Linear(8, 16, bias=False), layers.BatchNorm1d(16), nn.Linear(16, 4))
    data = [torch.randn(64, 8) for _ in range(3)]
    normdoctor.check(net, data[0], data=data)
    assert net[1].statistics.mean is None
    net(data[0])
    kept, copy = net[1].statistics.mean, net[1].statistics.mean.clone()
    normdoctor.check(net, data[0], data=[batch + 5 for batch in data])
    assert net[1].statistics.mean is kept
    assert torch.equal(kept, copy)
