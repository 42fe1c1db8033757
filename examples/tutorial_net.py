"""The net of the tutorial: it trains, and is worse than it could be.

`docs/tutorial.md` finds the faults one after the other; `tutorial_net_mended.py` is what comes of it.
"""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, padding=1)
        self.norm = nn.BatchNorm2d(outer, momentum=0.99)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)))


class TutorialNet(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.features = nn.Sequential(Block(16, 16), nn.MaxPool2d(2), Block(16, 32), nn.AdaptiveAvgPool2d(1))
        self.hidden = nn.Linear(32, 64)
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = self.features(self.stem(x).relu()).flatten(1)
        return torch.softmax(self.head(self.hidden(x)), dim=1)


criterion = nn.CrossEntropyLoss()


def training_step(net, images, labels):
    return criterion(net(images), labels)


def batches():
    """Sixteen batches of 32 grey images, 16 x 16, from 0 to 255: a bright square on a dark ground."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(512, 1, 16, 16, generator=random) * 50
    corners = torch.randint(0, 10, (512, 2), generator=random).tolist()
    for image, (top, left) in zip(images, corners, strict=True):
        image[:, top : top + 6, left : left + 6] += 200
    return list(images.split(32))


model = TutorialNet()
inputs = torch.zeros(32, 1, 16, 16)
