"""A residual network for 32 x 32 images (He et al., 2016), with the refinements that became usual.

Convolutions before BatchNorm have no bias, weights are drawn after He, and the last scale of each residual
branch starts at zero (Goyal et al., 2017), so that every block starts as the identity.
"""

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(inner, outer, stride)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = conv3x3(outer, outer)
        self.bn2 = nn.BatchNorm2d(outer)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.skip = nn.Sequential(
                nn.Conv2d(inner, outer, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outer),
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.skip(x))


class ResNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
        layers: list[nn.Module] = []
        inner = widths[0]
        for width in widths:
            for index in range(blocks):
                stride = 2 if index == 0 and width != widths[0] else 1
                layers.append(BasicBlock(inner, width, stride))
                inner = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inner, classes)
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)

    def forward(self, images):
        features = self.blocks(self.stem(images))
        return self.head(features.mean(dim=(2, 3)))


model = ResNet()
inputs = torch.randn(8, 3, 32, 32)
