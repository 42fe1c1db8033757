"""An MLP on tables with BatchNorm1d and dropout, as a Sequential."""

import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(20, 64, bias=False),
    nn.BatchNorm1d(64),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Linear(64, 128, bias=False),
    nn.BatchNorm1d(128),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Linear(128, 64),
    nn.GroupNorm(4, 64),
    nn.ReLU(),
    nn.Linear(64, 64),
    nn.ReLU(),
    nn.Linear(64, 1),
)
inputs = torch.randn(16, 20)
loss = nn.BCEWithLogitsLoss()
