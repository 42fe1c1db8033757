"""A dataset class that downloads in __init__, built before the model, inside main() without a guard."""

import socket
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Remote(Dataset):
    def __init__(self, host):
        self.connection = socket.create_connection((host, 443), timeout=5)

    def __len__(self):
        return 10


class Conformer(nn.Module):
    def __init__(self, dim: int = 24):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, 3, padding=1, groups=dim)
        self.bn = nn.BatchNorm1d(dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        y = self.bn(self.conv(self.norm(x).transpose(1, 2))).transpose(1, 2)
        return x + self.proj(nn.functional.silu(y))


def main():
    loader = DataLoader(Remote("speech.example.org"), batch_size=4)
    model = Conformer()
    for batch in loader:
        model(batch).sum().backward()
    return 0


sys.exit(main())
