"""Norms in modules of their own, as users write them."""

import torch
from torch import nn


class BatchNorm(nn.Module):
    def __init__(self, channels, momentum=0.1, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.eps = momentum, eps

    def forward(self, x):
        if self.training:
            mean = x.mean((0, 2, 3))
            var = x.var((0, 2, 3), unbiased=False)
            with torch.no_grad():
                self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean)
                self.running_var.mul_(1 - self.momentum).add_(self.momentum * x.var((0, 2, 3)))
        else:
            mean, var = self.running_mean, self.running_var
        x = (x - mean[None, :, None, None]) / torch.sqrt(var[None, :, None, None] + self.eps)
        return x * self.weight[None, :, None, None] + self.bias[None, :, None, None]


def normalized(x, gamma, beta, mean, var, eps, momentum):
    if not torch.is_grad_enabled():
        return gamma * (x - mean) / torch.sqrt(var + eps) + beta, mean, var
    here = x.mean(dim=(0, 2, 3), keepdim=True)
    spread = ((x - here) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    y = gamma * (x - here) / torch.sqrt(spread + eps) + beta
    return y, momentum * mean + (1 - momentum) * here.detach(), momentum * var + (1 - momentum) * spread.detach()


class GradBatchNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        shape = (1, channels, 1, 1)
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.mean, self.var = torch.zeros(shape), torch.ones(shape)

    def forward(self, x):
        if self.mean.device != x.device:
            self.mean, self.var = self.mean.to(x.device), self.var.to(x.device)
        y, self.mean, self.var = normalized(x, self.gamma, self.beta, self.mean, self.var, 1e-5, 0.9)
        return y


class FrozenBatchNorm(nn.Module):
    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((channels,), float(value)))

    def forward(self, x):
        shape = (1, -1, 1, 1)
        scale = self.weight.reshape(shape) * (self.running_var.reshape(shape) + self.eps).rsqrt()
        return x * scale + (self.bias.reshape(shape) - self.running_mean.reshape(shape) * scale)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(dtype)
