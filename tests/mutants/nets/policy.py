"""An actor and a critic without norms: tanh in the one, F.relu in the other."""

import torch
import torch.nn.functional as F
from torch import nn


class Critic(nn.Module):
    def __init__(self, state=17, hidden=64):
        super().__init__()
        self.fc1 = nn.Linear(state, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, 1)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = F.relu(self.fc3(x))
        return self.value(x)


class Policy(nn.Module):
    def __init__(self, state=17, actions=4, hidden=64):
        super().__init__()
        self.actor = nn.Sequential(
            nn.Linear(state, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, actions),
        )
        self.critic = Critic(state, hidden)

    def forward(self, state):
        return self.actor(state), self.critic(state)


def loss(output, labels):
    scores, value = output
    return F.cross_entropy(scores, labels) + F.mse_loss(value.squeeze(1), labels.float())


model = Policy()
inputs = torch.randn(8, 17)
labels = torch.randint(0, 4, (8,))
