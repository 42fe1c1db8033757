"""A GAN pair as a library file: two roots, nothing built."""

import torch
from torch import nn


class ResidualUnit(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.InstanceNorm2d(width), nn.ReLU())

    def forward(self, x):
        return x + self.body(x)


class Generator(nn.Module):
    def __init__(self, channels=3, width=16, units=2):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 7, padding=3)
        self.units = nn.Sequential(*[ResidualUnit(width) for _ in range(units)])
        self.out = nn.Conv2d(width, channels, 7, padding=3)

    def forward(self, x):
        return torch.tanh(self.out(self.units(self.stem(x))))


class PatchDiscriminator(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4, 1, 1)
        )

    def forward(self, x):
        return self.net(x)


class GANLoss(nn.Module):
    def __init__(self, target=1.0):
        super().__init__()
        self.register_buffer("target", torch.tensor(target))
        self.loss = nn.MSELoss()

    def forward(self, prediction):
        return self.loss(prediction, self.target.expand_as(prediction))
