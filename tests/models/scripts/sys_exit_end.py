"""An evaluation script that leaves with an exit code."""

import sys

import torch
import torch.nn as nn


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(30, 12), nn.ReLU(True), nn.Linear(12, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 12), nn.ReLU(True), nn.Linear(12, 30), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


ae = AutoEncoder().eval()
with torch.no_grad():
    x = torch.rand(9, 30)
    error = nn.functional.mse_loss(ae(x), x)
print("reconstruction error", error.item())
sys.exit(0 if error < 10 else 1)
