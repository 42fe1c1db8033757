import torch
from torch.nn import functional as F


def loss_fn(output, labels):
    return F.cross_entropy(output, labels)


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
