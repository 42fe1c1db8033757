"""LeNet with sigmoids and `nn.BatchNorm`, written the way most people write it first.

It trains and evaluates correctly. What can be said against it: each convolution and hidden linear layer has
a bias that the BatchNorm behind it subtracts again at once (ND101). Those 226 parameters learn nothing;
`bias=False` removes them.
"""

from collections.abc import Callable

import torch
from torch import nn


class LeNet(nn.Module):
    """LeCun et al. (1998), with batch normalization after each layer but the last.

    `activation` builds the nonlinearity: `LeNet(activation=nn.ReLU)` is the modern variant.
    """

    def __init__(self, classes: int = 10, activation: Callable[[], nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.BatchNorm2d(6),
            activation(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.BatchNorm2d(16),
            activation(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.BatchNorm1d(120),
            activation(),
            nn.Linear(120, 84),
            nn.BatchNorm1d(84),
            activation(),
            nn.Linear(84, classes),
        )

    def forward(self, images):
        return self.classifier(self.features(images))


model = LeNet()
inputs = torch.randn(8, 1, 28, 28)
