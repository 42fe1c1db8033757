"""A multilayer perceptron whose layers are initialized for the activation that follows them.

Xavier (Glorot and Bengio, 2010) keeps the variance of a signal through layers that are nearly linear around
zero, as the sigmoid is; He (2015) makes up for the half that a ReLU cuts off. The network ends in a softmax
and returns probabilities, so its loss is the negative log likelihood of their logarithm.
`nn.CrossEntropyLoss` would be wrong here: it applies a softmax of its own (ND310). The sigmoid stands in a
hidden layer to show its initialization; ND304 notes it, since its derivative is 1/4 at most.
"""

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, features: int = 784, hidden: int = 256, classes: int = 10) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(features, hidden),
            nn.Sigmoid(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
            nn.Softmax(dim=1),
        )
        before_sigmoid, before_relu, before_softmax = (m for m in self.net if isinstance(m, nn.Linear))
        nn.init.xavier_uniform_(before_sigmoid.weight)
        nn.init.kaiming_normal_(before_relu.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(before_softmax.weight)
        for layer in (before_sigmoid, before_relu, before_softmax):
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        return self.net(x)


def negative_log_likelihood(probabilities, labels):
    """The loss that fits an output of probabilities."""
    return F.nll_loss(probabilities.clamp_min(1e-12).log(), labels)


model = MLP()
inputs = torch.randn(32, 784)
