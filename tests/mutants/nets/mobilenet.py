"""MobileNet-style inverted residuals with squeeze-and-excitation gates."""

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(width, width // 4, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(width // 4, width, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x):
        scale = self.expand(self.act(self.reduce(self.pool(x))))
        return x * self.gate(scale)


class InvertedResidual(nn.Module):
    def __init__(self, inner, outer, stride, ratio=4):
        super().__init__()
        hidden = inner * ratio
        self.residual = stride == 1 and inner == outer
        self.conv = nn.Sequential(
            nn.Conv2d(inner, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            SqueezeExcite(hidden),
            nn.Conv2d(hidden, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )

    def forward(self, x):
        out = self.conv(x)
        return x + out if self.residual else out


class MobileNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            InvertedResidual(16, 16, 1),
            InvertedResidual(16, 24, 2),
            InvertedResidual(24, 24, 1),
            nn.Conv2d(24, 96, 1, bias=False),
            nn.BatchNorm2d(96),
            nn.Hardswish(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(96, 128),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(128, classes),
        )

    def forward(self, x):
        x = self.pool(self.features(x)).flatten(1)
        return self.classifier(x)


model = MobileNet()
inputs = torch.randn(4, 3, 32, 32)
loss = nn.CrossEntropyLoss()
