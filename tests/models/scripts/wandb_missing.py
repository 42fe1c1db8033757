"""Logs to a service whose library is not installed, with a decorator and a config from it."""

import surely_not_installed_wandb as wandb
from surely_not_installed_hydra.core import register
import torch
import torch.nn as nn

wandb.init(project="demo", config={"lr": 1e-3})


@register(name="mlp")
class MLP(nn.Module):
    def __init__(self, d_in=10, d_hidden=20, d_out=2):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d_in, d_hidden), nn.Tanh(), nn.Linear(d_hidden, d_out))

    def forward(self, x):
        return self.layers(x)


model = MLP()
wandb.watch(model, log="all")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(100):
    x = torch.randn(7, 10)
    loss = nn.functional.mse_loss(model(x), torch.zeros(7, 2))
    optimizer.zero_grad()
    loss.backward()
    wandb.log({"loss": loss.item()})
