"""The parameter is called `hp`; only its annotation says what it is."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn as nn


class Hyper(NamedTuple):
    inputs: int = 12
    hidden: int = 24
    layers: int = 2


class Trunk(nn.Module):
    def __init__(self, hp: Hyper) -> None:
        super().__init__()
        widths = [hp.inputs] + [hp.hidden] * hp.layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.LayerNorm(b) for b in widths[1:])

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms):
            x = norm(layer(x)).relu()
        return x


class Regressor(nn.Module):
    def __init__(self, hp: Hyper, out: int = 1) -> None:
        super().__init__()
        self.trunk = Trunk(hp)
        self.out = nn.Linear(hp.hidden, out)

    def forward(self, x):
        return self.out(self.trunk(x))
