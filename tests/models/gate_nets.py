"""Nets with gates of several kinds. `gate` is the layer that computes the score of the gate that is examined.

A gate is shut tight, or wide open, for every input when the bias of that layer is large.
"""

import torch
import torch.nn.functional as F
from torch import nn


class SqueezeExcite(nn.Module):
    """A gate on channels, in several spellings; `fault` makes it constant."""

    shape = (16, 3, 8, 8)
    place = "up"  # behind which the gate stands

    def __init__(self, spelling="sigmoid", fault=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.other = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Linear(16, 16)
        self.up = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)
        self.spelling, self.fault = spelling, fault
        if fault and spelling != "select":
            with torch.no_grad():
                self.up.bias.fill_(200.0)

    @property
    def gate(self):
        return self.up

    def forward(self, x):
        y, other = self.conv(x), self.other(x)
        score = self.up(F.relu(self.down(y.mean((2, 3)))))
        if self.spelling == "sigmoid":
            y = y * torch.sigmoid(score)[:, :, None, None]
        elif self.spelling == "hard":
            y = F.hardsigmoid(score).view(-1, 16, 1, 1) * y
        elif self.spelling == "blend":
            gate = score.sigmoid().unsqueeze(-1).unsqueeze(-1)
            y = y * gate + other * (1 - gate)
        else:
            two = torch.stack([score, score if self.fault else self.down(score)], 1)
            first, second = torch.softmax(two, 1).unbind(1)
            y = y * first[..., None, None] + other * second[..., None, None]
        return self.head(y.relu().mean((2, 3)))


class Highway(nn.Module):
    """Layers that blend what they compute with what they get: modules, in a list."""

    shape = (64, 20)
    place = "gates.1"

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(20, 20) for _ in range(3))
        self.scores = nn.ModuleList(nn.Linear(20, 20) for _ in range(3))
        self.gates = nn.ModuleList(nn.Sigmoid() for _ in range(3))
        self.head = nn.Linear(20, 5)

    @property
    def gate(self):
        return self.scores[1]

    def forward(self, x):
        for layer, score, gate in zip(self.layers, self.scores, self.gates, strict=True):
            share = gate(score(x))
            x = share * F.gelu(layer(x)) + (1 - share) * x
        return self.head(x)


class GatedMixer(nn.Module):
    """A transformer's gated feed-forward, in functions."""

    shape = (8, 6, 16)
    place = "gate"

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = self.norm(x)
        y = F.linear(y, self.up.weight) * F.sigmoid(F.linear(y, self.gate.weight, self.gate.bias))
        return {"logits": self.head((x + self.down(y)).mean(1))}


class Cell(nn.Module):
    """A gated recurrent unit written by hand; its gates are sigmoids of one product."""

    shape = (32, 5, 10)
    place = "gate"

    def __init__(self):
        super().__init__()
        self.gate, self.new = nn.Linear(10 + 24, 24), nn.Linear(10 + 24, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        h = x.new_zeros(len(x), 24)
        for step in x.unbind(1):
            both = torch.cat([step, h], 1)
            z = torch.sigmoid(self.gate(both))
            h = torch.lerp(h, torch.tanh(self.new(both)), z)
        return self.head(h)


NETS = [SqueezeExcite, Highway, GatedMixer, Cell]
