"""A CNN in functional style: parameters and buffers of its own, F.conv2d, F.batch_norm, F.relu."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def weight(outer, inner, size):
    return nn.Parameter(torch.randn(outer, inner, size, size) * math.sqrt(2 / (inner * size * size)))


class Net(nn.Module):
    def __init__(self, width=16, classes=10):
        super().__init__()
        self.w1 = weight(width, 3, 3)
        self.w2 = weight(width, width, 3)
        self.w3 = nn.Parameter(torch.randn(width, width, 3, 3) * math.sqrt(2 / (width * 9)))
        self.fc = nn.Parameter(torch.randn(classes, width) * 0.1)
        self.fc_bias = nn.Parameter(torch.zeros(classes))
        self.gamma1 = nn.Parameter(torch.ones(width))
        self.beta1 = nn.Parameter(torch.zeros(width))
        self.gamma2 = nn.Parameter(torch.ones(width))
        self.beta2 = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean1", torch.zeros(width))
        self.register_buffer("var1", torch.ones(width))
        self.register_buffer("mean2", torch.zeros(width))
        self.register_buffer("var2", torch.ones(width))

    def forward(self, x):
        x = F.conv2d(x, self.w1, padding=1)
        x = F.batch_norm(x, self.mean1, self.var1, self.gamma1, self.beta1, training=self.training)
        x = F.relu(x)
        x = F.conv2d(x, self.w2, padding=1)
        x = F.batch_norm(x, self.mean2, self.var2, self.gamma2, self.beta2, training=self.training)
        x = F.relu(x)
        x = F.dropout(x, 0.1, training=self.training)
        x = F.conv2d(x, self.w3, padding=1)
        x = F.relu(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = F.dropout(x, 0.5, training=self.training)
        return F.linear(x, self.fc, self.fc_bias)


model = Net()
inputs = torch.randn(4, 3, 16, 16)
loss = nn.CrossEntropyLoss()
