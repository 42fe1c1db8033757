"""An ensemble in an nn.ModuleList at the top level."""

import torch
from torch import nn


class Member(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(5, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 1))

    def forward(self, x):
        return self.body(x)


ensemble = nn.ModuleList([Member(seed) for seed in range(3)])
mean = torch.stack([member(torch.randn(4, 5)) for member in ensemble]).mean(0)
