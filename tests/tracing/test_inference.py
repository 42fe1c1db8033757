"""Inputs are found for models whose forward gives little to go by."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normdoctor import check


class Siamese(nn.Module):
    """Two inputs of one size, which is not among the first three guesses: Omniglot's 105 x 105."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 10), nn.ReLU(), nn.MaxPool2d(8))
        self.out = nn.Linear(4 * 12 * 12, 1)

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        one, two = self.conv(x1).flatten(1), self.conv(x2).flatten(1)
        return torch.sigmoid(self.out((one - two).abs()))


class Routed(nn.Module):
    """Sends each token to one expert: `torch.where` of a mask has no shape without values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens).view(-1, 8)
        chosen = F.softmax(self.gate(x), dim=-1).argmax(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == index)
            out[rows] = expert(x[rows])
        return out


class Masked(nn.Module):
    """Indexes with a mask that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(torch.relu(x[x.sum(1) > -1e9]))


class Actor(nn.Module):
    """Its first layers stand in a plain list, where torch does not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(17, 32), nn.Linear(32, 32)]
        self.norm, self.out = nn.BatchNorm1d(32), nn.Linear(32, 6)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.layers[0](state))
        return torch.tanh(self.out(torch.relu(self.norm(self.layers[1](hidden)))))


@pytest.mark.parametrize(
    ("model", "shapes", "carrier"),
    [
        (Siamese, [(2, 1, 105, 105)] * 2, "meta"),
        (Routed, [(2, 16)], "real"),
        (Masked, [(2, 8)], "real"),
        (Actor, [(2, 17)], "meta"),
    ],
)
def test_inputs_are_found(model: type[nn.Module], shapes: list[tuple[int, ...]], carrier: str) -> None:
    report = check(model)
    assert not report.problems, report.problems
    (target,) = report.targets
    assert [one.tensor.shape for one in target.inputs] == shapes
    assert target.recorded == carrier
