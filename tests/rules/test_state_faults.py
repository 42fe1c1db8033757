"""Reported faults of state, modes and what is trained (ND501, ND503, ND506 to ND510, ND513)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from normdoctor import check

X = torch.zeros(4, 16)
IMAGE = torch.randn(4, 3, 8, 8)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1),
    )  # fmt: skip


def codes(model, inputs=IMAGE, **settings) -> list[str]:
    select = ["ND501", "ND503", "ND506", "ND507", "ND508", "ND509", "ND510", "ND513"]
    report = check(model, inputs=inputs, select=settings.pop("select", select), **settings)
    assert not report.problems, report.problems
    return [one.code for one in report.findings]


# -- frozen norms and modes ------------------------------------------------------------------------


def test_freezing_the_parameters_alone_leaves_the_statistics() -> None:
    model = net()
    model[:3].requires_grad_(False)
    assert codes(model) == ["ND506"]
    model[1].eval()
    assert codes(model) == []


def test_a_model_that_is_frozen_as_a_whole_says_nothing() -> None:
    assert codes(net().requires_grad_(False)) == []


def test_a_norm_without_statistics_or_parameters_cannot_be_frozen_by_halves() -> None:
    for norm in (nn.BatchNorm2d(8, track_running_stats=False), nn.BatchNorm2d(8, affine=False)):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 4, 1))
        model[:2].requires_grad_(False)
        assert codes(model) == []


def test_an_incomplete_freeze_mixes_modes_in_one_block() -> None:
    model = net()
    model[4].eval()
    assert codes(model) == ["ND507"]
    model[1].eval()
    model[4].train()
    assert codes(model) == []  # the first layers are frozen


# -- optimizers ------------------------------------------------------------------------------------


class Rms(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma


@pytest.mark.parametrize("norm", [nn.RMSNorm, nn.LayerNorm, Rms])
def test_decay_of_norms_is_told_by_what_they_are(norm) -> None:
    model = nn.Sequential(nn.Linear(16, 16), norm(16), nn.GELU(), nn.Linear(16, 4))
    names = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [p for n, p in model.named_parameters() if not n.endswith(names)], "weight_decay": 0.1},
        {"params": [p for n, p in model.named_parameters() if n.endswith(names)], "weight_decay": 0.0},
    ]
    report = check(model, inputs=X, optimizer=torch.optim.AdamW(groups), select=["ND508"])
    (finding,) = report.findings
    assert finding.evidence["parameters"] == 1
    assert finding.evidence["biases"] == 0
    groups[0]["weight_decay"] = 0.0
    assert codes(model, X, optimizer=torch.optim.AdamW(groups)) == []


def test_norms_that_the_optimizer_does_not_have() -> None:
    model = net()
    weights = [p for module in model if isinstance(module, nn.Conv2d) for p in module.parameters()]
    assert codes(model, optimizer=torch.optim.SGD(weights, lr=0.1)) == ["ND509"]
    assert codes(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)) == []
    assert codes(model, optimizer=torch.optim.SGD(model[6].parameters(), lr=0.1)) == []


def test_only_norms_can_be_trained() -> None:
    model = net()
    for module in model:
        module.requires_grad_(isinstance(module, nn.BatchNorm2d))
    assert codes(model, min_confidence="low") == ["ND510"]
    assert codes(model) == []


# -- copies ----------------------------------------------------------------------------------------


def trained(model: nn.Module) -> nn.Module:
    model.train()
    for _ in range(3):
        model(3 + torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1)
    return model


def test_an_average_over_parameters_leaves_the_buffers() -> None:
    online = net()
    average = copy.deepcopy(online)
    trained(online)
    with torch.no_grad():
        for ours, theirs in zip(average.parameters(), online.parameters(), strict=True):
            ours.lerp_(theirs, 0.5)
    assert codes(average, reference=online) == ["ND513"]
    average.load_state_dict(online.state_dict())
    assert codes(average, reference=online) == []


def test_a_target_net_with_equal_parameters_and_old_statistics() -> None:
    online = trained(net())
    target = copy.deepcopy(online)
    trained(online)
    with torch.no_grad():
        for ours, theirs in zip(target.parameters(), online.parameters(), strict=True):
            ours.copy_(theirs)
    assert codes(target, reference=online) == ["ND513"]


def test_an_average_of_buffers_is_no_fault() -> None:
    online = trained(net())
    average = copy.deepcopy(online)
    trained(online)
    with torch.no_grad():
        for key, value in average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(online.state_dict()[key], 0.1)
    assert codes(average, reference=online) == []


# -- unreached modules -----------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self, aux_in_training):
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(16, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.aux_in_training = aux_in_training

    def forward(self, x):
        x = torch.relu(self.body(x))
        if self.aux_in_training and self.training:
            return self.head(x), self.aux(x)
        return self.head(x)


def test_a_layer_that_never_runs() -> None:
    assert codes(Two(aux_in_training=False), X) == ["ND501"]
    assert codes(Two(aux_in_training=True), X) == []
    assert codes(Two(aux_in_training=True).eval(), X) == []


# -- state in plain attributes ---------------------------------------------------------------------


class Keeps(nn.Module):
    """State of a kind, updated by a function of (self, features)."""

    def __init__(self, update, **tensors):
        super().__init__()
        self.fc, self.update = nn.Linear(16, 16), update
        for name, value in tensors.items():
            setattr(self, name, value)

    def forward(self, x):
        x = self.fc(x)
        self.update(self, x)
        return x


def moving(self, x):
    self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()


def in_place(self, x):
    self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)


def counter(self, x):
    self.mean += x.shape[0]


def in_a_dict(self, x):
    self.store["mean"] = self.store["mean"] + x.mean(0).detach()


@pytest.mark.parametrize("update", [moving, in_place, counter])
def test_state_in_an_attribute(update) -> None:
    model = Keeps(update, mean=torch.zeros(16))
    assert codes(model, X) == ["ND503"]
    assert torch.equal(model.mean, torch.zeros(16)), "the check leaves no trace"


def test_state_in_a_dict() -> None:
    assert codes(Keeps(in_a_dict, store={"mean": torch.zeros(16)}), X) == ["ND503"]


def replaced(self, x):
    self.mean = x.mean(0)


def shaped(self, x):
    if self.mean.shape[0] != x.shape[0]:
        self.mean = torch.arange(x.shape[0])


def read(self, x):
    return x + self.mean


@pytest.mark.parametrize("update", [replaced, shaped, read])
def test_what_is_no_state(update) -> None:
    assert codes(Keeps(update, mean=torch.zeros(16)), X) == []


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.hidden = nn.GRUCell(16, 16), torch.zeros(4, 16)

    def forward(self, x):
        self.hidden = self.cell(x, self.hidden)
        return self.hidden


def test_the_memory_of_a_sequence_is_no_state_of_the_model() -> None:
    assert codes(Remembers(), X) == []
