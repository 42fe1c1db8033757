"""Global device, global config dict, and a class that reads both."""

import torch
import torch.nn as nn
import torch.optim as optim

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
config = {"n_state": 4, "n_action": 2, "hidden": 32, "gamma": 0.99}
torch.set_default_dtype(torch.float32)


class DQN(nn.Module):
    def __init__(self, n_observations, n_actions):
        super(DQN, self).__init__()
        self.layer1 = nn.Linear(n_observations, config["hidden"])
        self.layer2 = nn.Linear(config["hidden"], config["hidden"])
        self.layer3 = nn.Linear(config["hidden"], n_actions)

    def forward(self, x):
        x = torch.relu(self.layer1(x))
        x = torch.relu(self.layer2(x))
        return self.layer3(x)


policy_net = DQN(config["n_state"], config["n_action"]).to(device)
target_net = DQN(config["n_state"], config["n_action"]).to(device)
target_net.load_state_dict(policy_net.state_dict())
optimizer = optim.AdamW(policy_net.parameters(), lr=1e-4, amsgrad=True)


def optimize_model(states, actions, rewards):
    values = policy_net(states).gather(1, actions)
    with torch.no_grad():
        future = target_net(states).max(1).values
    loss = nn.SmoothL1Loss()(values, (rewards + config["gamma"] * future).unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


optimize_model(torch.randn(10, 4, device=device), torch.zeros(10, 1, dtype=torch.long), torch.ones(10))
