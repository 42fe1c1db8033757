"""A U-Net with GroupNorm that segments one class."""

import torch
import torch.nn.functional as F
from torch import nn


class DoubleConv(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, outer)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return x


class UNet(nn.Module):
    def __init__(self, widths=(16, 32, 64)):
        super().__init__()
        first, second, third = widths
        self.down1 = DoubleConv(3, first)
        self.down2 = DoubleConv(first, second)
        self.bottom = DoubleConv(second, third)
        self.up2 = nn.ConvTranspose2d(third, second, 2, stride=2)
        self.dec2 = DoubleConv(2 * second, second)
        self.up1 = nn.ConvTranspose2d(second, first, 2, stride=2)
        self.dec1 = DoubleConv(2 * first, first)
        self.drop = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(first, 1, 1)

    def forward(self, x):
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        low = self.drop(self.bottom(F.max_pool2d(two, 2)))
        x = self.dec2(torch.cat([two, self.up2(low)], dim=1))
        x = self.dec1(torch.cat([one, self.up1(x)], dim=1))
        return self.head(x)


model = UNet()
inputs = torch.randn(2, 3, 32, 32)
loss = nn.BCEWithLogitsLoss()
