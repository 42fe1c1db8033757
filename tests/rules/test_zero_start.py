"""ND401 where a layer of zeros meets sums: a skip carries the signal past it, or starts behind it."""

from __future__ import annotations

import pytest

from normdoctor.testing import check_source

NET = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return {join}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.position = nn.Parameter(torch.randn(8, 16, 16) * 0.02)
        self.block = Block(8)
        self.head = nn.Linear({width}, 10)
        nn.init.zeros_(self.{zero}.weight)

    def forward(self, x):
        x = {start}
        return self.head(self.block(x).mean((2, 3)))


model = Net()
inputs = torch.randn(2, 3, 16, 16)
"""
SUM, CONCAT = "x + torch.relu(self.conv(x))", "torch.cat([x, torch.relu(self.conv(x))], dim=1)"
GATE = "x * torch.sigmoid(self.conv(x))"
STEM = "torch.relu(self.stem(x))"


def lines(join: str, zero: str, start: str = STEM) -> list[int]:
    source = NET.format(join=join, zero=zero, start=start, width=16 if join == CONCAT else 8)
    return [one.location.line for one in check_source(source).findings if one.code == "ND401"]


@pytest.mark.parametrize("join", [SUM, CONCAT, GATE])
def test_nothing_passes_a_stem_of_zeros(join):
    assert lines(join, "stem") == [18]


@pytest.mark.parametrize("join", [SUM, CONCAT, GATE])
def test_a_branch_may_start_at_zero(join):
    assert lines(join, "block.conv") == []


@pytest.mark.parametrize("start", [f"{STEM} + self.position", f"torch.cat([x, {STEM}], dim=1)[:, -8:]"])
def test_something_else_carries_the_signal(start):
    assert lines(SUM, "stem", start) == []
