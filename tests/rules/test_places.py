"""Findings on modules that torch does not see, and labels of calls that stand on one line."""

from __future__ import annotations

import torch
from torch import nn

from normdoctor import check


class Block(nn.Module):
    """Calls its first norm twice and its second never."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return x + self.bn1(self.conv2(y))


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = [Block()]

    def forward(self, x):
        return self.blocks[0](x)


class Spare(nn.Module):
    """A plain list of norms, of which one is chosen."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        self.norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(8)]

    def forward(self, x):
        return self.norms[0](self.conv(x))


class Twins(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def branch(self, x):
        return self.net(x)

    def forward(self, one, two):
        return self.branch(one) - self.branch(two)


MAP = torch.zeros(2, 8, 4, 4)


def test_a_norm_in_a_hidden_block_is_looked_at():
    (found,) = check(Hidden, MAP, select="ND109,ND110").findings
    assert "blocks[0].bn2" in str(found)
    assert not check(Spare, MAP, select="ND109,ND110").findings


def test_calls_on_one_line_share_a_label():
    (found,) = check(Twins, (MAP, MAP + 1), select="ND105").findings
    assert [text for text, _ in found.related] == ["calls 1 and 2"]
    (found,) = check(Block, MAP, select="ND105").findings
    assert [text for text, _ in found.related] == ["call 1", "call 2"]
