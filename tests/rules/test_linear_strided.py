"""ND301 where one of the two convolutions is strided: a BatchNorm between says that two layers were meant."""

from __future__ import annotations

import pytest

from normdoctor.testing import check_source

NET = """
import torch
from torch import nn

model = nn.Sequential(
    {first},
    {between}
    {second},
    nn.ReLU(),
    nn.Conv2d(32, 4, 1),
)
inputs = torch.randn(2, 8, 16, 16)
"""
NORM = "nn.BatchNorm2d(16),"
UP = "nn.ConvTranspose2d({}, {}, 4, stride=2, padding=1)"
DOWN = "nn.Conv2d({}, {}, 4, stride=2, padding=1)"
SAME = "nn.Conv2d({}, {}, 3, padding=1)"


def lines(first: str, between: str, second: str) -> list[int]:
    source = NET.format(first=first.format(8, 16), between=between, second=second.format(16, 32))
    return [one.location.line for one in check_source(source).findings if one.code == "ND301"]


@pytest.mark.parametrize(("first", "second"), [(UP, UP), (DOWN, DOWN), (SAME, DOWN), (UP, SAME)])
def test_the_activation_between_is_missing(first, second):
    assert lines(first, NORM, second) == [8]


@pytest.mark.parametrize(("first", "second"), [(UP, UP), (DOWN, DOWN), (UP, SAME), (DOWN, SAME)])
def test_without_a_norm_it_may_be_meant(first, second):
    assert lines(first, "nn.Identity(),", second) == []


def test_an_activation_stands_between():
    assert lines(DOWN, f"{NORM} nn.LeakyReLU(0.2),", DOWN) == []


@pytest.mark.parametrize("second", [UP, SAME])
def test_few_values_between_are_a_bottleneck(second):
    assert lines(DOWN, NORM, second) == []


SHARED = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.block = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.out = nn.ModuleList(nn.Linear(16, 16) for _ in range(layers))

    def forward(self, x):
        for layer in self.out:
            x = x + layer(self.block(x))
        return x


model = Net({layers})
inputs = torch.randn(2, 5, 16)
"""


@pytest.mark.parametrize(("layers", "found"), [(1, ["ND301"]), (3, [])])
def test_a_first_layer_that_several_share(layers, found):
    report = check_source(SHARED.format(layers=layers), select=["ND301"])
    assert [finding.code for finding in report.findings] == found
