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


class Folding(nn.Module):
    """Written for 32 x 32: `view(-1, ...)` takes 224 x 224 as well, and makes 98 rows of two images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 32, 3, padding=1), nn.MaxPool2d(4)
        self.out = nn.Linear(32 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.pool(self.conv(x)).view(-1, 32 * 64))


class Patches(nn.Module):
    """Gives several rows for each image, whatever its size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).permute(0, 2, 3, 1).reshape(-1, 16))


class Series(nn.Module):
    """Takes (batch, time, feature) and transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(4, 8, 3), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.conv(x.permute(0, 2, 1)))[:, :, -1])


@pytest.mark.parametrize(
    ("model", "shapes", "carrier"),
    [
        (Siamese, [(2, 1, 105, 105)] * 2, "meta"),
        (Routed, [(2, 16)], "real"),
        (Masked, [(2, 8)], "real"),
        (Actor, [(2, 17)], "meta"),
        (Folding, [(2, 3, 32, 32)], "meta"),
        (Patches, [(2, 3, 224, 224)], "meta"),
        (Series, [(2, 128, 4)], "meta"),
    ],
)
def test_inputs_are_found(model: type[nn.Module], shapes: list[tuple[int, ...]], carrier: str) -> None:
    report = check(model)
    assert not report.problems, report.problems
    (target,) = report.targets
    assert [one.tensor.shape for one in target.inputs] == shapes
    assert target.recorded == carrier


class Slip(nn.Module):
    def _init_(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Inner(nn.Module):
    def forword(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.inner = nn.Linear(4, 4), Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.layer(x))


@pytest.mark.parametrize(
    ("model", "words"), [(Slip, ("`_init_`", "`__init__`")), (Outer, ("Inner", "`forword`", "`forward`"))]
)
@pytest.mark.parametrize("inputs", [None, torch.zeros(2, 4)])
def test_a_misspelt_method_is_named(
    model: type[nn.Module], words: tuple[str, ...], inputs: torch.Tensor | None
) -> None:
    (problem,) = check(model(), inputs=inputs).problems
    assert all(word in problem.hint for word in words)
