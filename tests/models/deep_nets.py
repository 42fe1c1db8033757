"""Nets of eight layers in several styles; what is handed to them stands behind the fifth."""

import torch
import torch.nn.functional as F
from torch import nn


class Scale(nn.Module):
    """Multiplies the gradient, not the value."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        scaled = x * self.factor
        return x.detach() + (scaled - scaled.detach())


class WithDeviation(nn.Module):
    """Adds the deviation of each sample; its slope is NaN where all values are equal."""

    def forward(self, x):
        return x + x.var(1, keepdim=True).sqrt()


class Dead(nn.Module):
    def forward(self, x):
        return torch.relu(x - 1000.0)


WIDTH, DEPTH, AT = 16, 8, 4  # the fault stands behind layer 4 of 8


class Sequential(nn.Sequential):
    def __init__(self, fault=nn.Identity):
        layers = []
        for index in range(DEPTH):
            layers += [nn.Linear(WIDTH, WIDTH), nn.Tanh()]
            if index == AT:
                layers.append(fault())
        super().__init__(*layers, nn.Linear(WIDTH, 4))

    @staticmethod
    def path(index):
        return str(2 * index + (index > AT))


class Functional(nn.Module):
    """Weights are parameters of the net itself, given to functions."""

    def __init__(self, fault=nn.Identity):
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 4 for _ in range(DEPTH))
        self.fault = fault()
        self.head = nn.Parameter(torch.randn(4, WIDTH) / 4)

    def forward(self, x):
        for index, weight in enumerate(self.weights):
            x = torch.tanh(F.linear(x, weight))
            if index == AT:
                x = self.fault(x)
        return F.linear(x, self.head)

    @staticmethod
    def path(index):
        return "weights"


class Convolutional(nn.Module):
    def __init__(self, fault=nn.Identity):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(1 if index == 0 else 4, 4, 3, padding=1) for index in range(DEPTH)
        )
        self.fault = fault()
        self.head = nn.Linear(4 * WIDTH, 4)

    def forward(self, x):
        x = x.unsqueeze(1)
        for index, conv in enumerate(self.convs):
            x = F.silu(conv(x))
            if index == AT:
                x = self.fault(x.flatten(1)).view_as(x)
        return self.head(x.flatten(1))

    @staticmethod
    def path(index):
        return f"convs.{index}"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        return {"hidden": F.gelu(self.norm(self.fc1(x)))}


class Blocks(nn.Module):
    """Blocks with norms that return dicts."""

    def __init__(self, fault=nn.Identity):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.fault = fault()
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x):
        for index, block in enumerate(self.blocks):
            x = block(x)["hidden"]
            if index == AT:
                x = self.fault(x)
        return self.head(x)

    @staticmethod
    def path(index):
        return f"blocks.{index}.fc1"


NETS = [Sequential, Functional, Convolutional, Blocks]


def data(n=32):
    x = torch.randn(n, WIDTH)
    return x, x[:, :4].argmax(1)
