"""The model is an attribute of a trainer object."""

import torch
import torch.nn as nn


class SiameseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.PReLU(), nn.Linear(20, 4))

    def forward(self, left, right, scale=1.0):
        return (self.branch(left) - self.branch(right)).pow(2).sum(1) * scale


class Trainer:
    def __init__(self, lr):
        self.net = SiameseNet()
        self.criterion = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.RMSprop(self.net.parameters(), lr=lr)

    def step(self, a, b, label):
        self.net.train()
        self.optimizer.zero_grad()
        loss = self.criterion(self.net(a, b, scale=0.5), label)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, epochs):
        for _ in range(epochs):
            self.step(torch.randn(6, 10), torch.randn(6, 10), torch.ones(6))


trainer = Trainer(lr=1e-3)
trainer.fit(100)
