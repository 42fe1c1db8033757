"""Retries forever, and swallows every error on the way."""

import time

import torch
import torch.nn as nn

model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
attempts = 0
while True:
    try:
        loss = model(torch.randn(2, 3)).sum()
        loss.backward()
        optimizer.step()
        attempts += 1
        if attempts > 10**9:
            break
    except:  # noqa: E722
        time.sleep(0.01)
