"""Wants arguments from sys.argv by hand, and exits with a usage line before the classes."""

import sys

if len(sys.argv) < 2:
    print("usage: python usage_exit.py DATA", file=sys.stderr)
    sys.exit(2)

import torch.nn as nn  # noqa: E402

CHANNELS = 6


class SegHead(nn.Module):
    def __init__(self, channels=CHANNELS):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.norm = nn.GroupNorm(2, channels)
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, x):
        return self.out(self.norm(self.up(x)))


dataset = open(sys.argv[1]).read()
