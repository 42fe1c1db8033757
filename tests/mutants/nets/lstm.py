"""An LSTM classifier with attention pooling over time; its loss is written with F.cross_entropy."""

import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self, words=500, dim=32, hidden=64, classes=4):
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Linear(2 * hidden, 1)
        self.fc1 = nn.Linear(2 * hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(0.3)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, tokens):
        states, _ = self.lstm(self.embed(tokens))
        weights = torch.softmax(self.score(states), dim=1)
        pooled = (weights * states).sum(dim=1)
        x = torch.relu(self.norm(self.fc1(pooled)))
        x = self.drop(x)
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


def loss(output, labels):
    return F.cross_entropy(output, labels)


model = Classifier()
inputs = torch.randint(0, 500, (4, 12))
labels = torch.randint(0, 4, (4,))
