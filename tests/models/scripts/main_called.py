"""main() is called without a guard, and holds everything in its local variables."""

import torch
from torch import nn, optim


def build(depth):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def run_epoch(network, criterion, optimizer, batches):
    network.train()
    for x, y in batches:
        loss = criterion(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main():
    network = build(depth=2)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.AdamW(network.parameters())
    batches = [(torch.randn(5, 16), torch.randint(3, (5,)))]
    for _ in range(10):
        run_epoch(network, criterion, optimizer, batches)


main()
