"""Several models in a dict, chosen by name; and the layers of a toolbox in a list."""

import torch
import torch.nn as nn


class Linear(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.fc = nn.Linear(n, 1)

    def forward(self, x):
        return self.fc(x)


class Deep(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.net(x)


models = {"linear": Linear(6), "deep": Deep(6)}
optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}

x, y = torch.randn(8, 6), torch.randn(8, 1)
for name, model in models.items():
    print(name, nn.functional.mse_loss(model(x), y).item())
del model
