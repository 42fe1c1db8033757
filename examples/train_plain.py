"""A loop of one's own under `normdoctor.watch`: findings while it trains, figures in a file, a report.

    python examples/train_plain.py

The figures of each look go to figures.jsonl. Other sinks: TensorBoard("runs"), WandB() and MLflow() of
normdoctor.integrations, or any function of (metrics, step).
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import normdoctor
from normdoctor.integrations import JsonLines


def block(inner: int, outer: int) -> nn.Sequential:
    conv = nn.Conv2d(inner, outer, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.ReLU())


class Net(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16), block(16, 32))
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


model = Net()
inputs = torch.zeros(32, 3, 16, 16)


def data(count: int) -> DataLoader:
    """Images of noise in which one of four quarters is brighter."""
    labels = torch.randint(4, (count,))
    images = torch.randn(count, 3, 16, 16)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 8 * (label // 2), 8 * (label % 2)
        image[:, top : top + 8, left : left + 8] += 2
    return DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True, drop_last=True)


def main() -> None:
    torch.manual_seed(0)
    net, train, val = Net(), data(512), data(128)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    with normdoctor.watch(net, optimizer, every=4, sink=JsonLines("figures.jsonl")) as watch:
        for epoch in range(2):
            net.train()
            for x, y in train:
                loss = F.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.step(loss)
            net.eval()
            with torch.no_grad():
                right = sum((net(x).argmax(1) == y).sum().item() for x, y in val)
            print(f"epoch {epoch}: accuracy {right / (len(val) * 32):.1%}")
    print(watch.report())


if __name__ == "__main__":
    main()
