"""Three faults that raise no error and cost accuracy: the example of the README.

`normdoctor check examples/faulty_net.py` finds them, and a bias that nothing needs.
"""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.conv(self.relu(x)))


class Net(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*[Block(16) for _ in range(3)])
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return torch.softmax(self.head(x), dim=1)


criterion = nn.CrossEntropyLoss()


def training_step(net: Net, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return criterion(net(images), labels)


model = Net()
inputs = torch.zeros(8, 3, 32, 32)
