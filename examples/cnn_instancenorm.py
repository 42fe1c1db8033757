"""A small image-to-image network with InstanceNorm, of the kind used for style transfer.

InstanceNorm (Ulyanov et al., 2016) normalizes each channel of each image by itself, which takes the
contrast of the content image out of the result. The convolutions in front of it have no bias, since it
would be subtracted at once.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ConvNorm(nn.Sequential):
    """Convolution with reflected borders, InstanceNorm with a learned style, ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inner, outer, kernel, stride, kernel // 2, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(outer, affine=True),
            nn.ReLU(),
        )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x):
        return x + self.norm(self.conv(self.first(x)))


class StyleNet(nn.Module):
    """Johnson et al. (2016), narrower and with two residual blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down = nn.Sequential(ConvNorm(3, width, 9), ConvNorm(width, 2 * width, 3, stride=2))
        self.blocks = nn.Sequential(Residual(2 * width), Residual(2 * width))
        self.up = ConvNorm(2 * width, width, 3)
        self.out = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, image):
        x = self.blocks(self.down(image))
        x = self.up(F.interpolate(x, scale_factor=2, mode="nearest"))
        return torch.sigmoid(self.out(x))


model = StyleNet()
inputs = torch.rand(2, 3, 64, 64)
