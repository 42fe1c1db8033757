"""Nets of several styles with BatchNorm at three places each, and batches for them."""

import torch
import torch.nn.functional as F
from torch import nn


class Plain(nn.Module):
    """Modules in a Sequential, with images."""

    shape = (3, 12, 12)
    places = ("net.1", "net.4", "net.9")

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(24, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


class OwnNorm(nn.Module):
    """F.batch_norm over buffers and parameters of one's own."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.track = True
        self.eps = 1e-5

    def forward(self, x):
        training = self.training or not self.track
        mean, var = (self.running_mean, self.running_var) if self.track else (None, None)
        return F.batch_norm(x, mean, var, self.gamma, self.beta, training, 0.1, self.eps)


class Functional(nn.Module):
    """Functions throughout."""

    shape = (3, 12, 12)
    places = ("norm1", "norm2", "norm3")

    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(16, 3, 3, 3) * 0.2)
        self.w2 = nn.Parameter(torch.randn(24, 16, 3, 3) * 0.1)
        self.w3 = nn.Parameter(torch.randn(32, 24) * 0.2)
        self.w4 = nn.Parameter(torch.randn(5, 32) * 0.2)
        self.norm1, self.norm2, self.norm3 = OwnNorm(16), OwnNorm(24), OwnNorm(32)

    def forward(self, x):
        x = F.relu(self.norm1(F.conv2d(x, self.w1)))
        x = torch.relu(self.norm2(F.conv2d(x, self.w2, stride=2)))
        x = F.relu(self.norm3(F.linear(x.mean((2, 3)), self.w3)))
        return F.linear(x, self.w4)


class NormAct(nn.BatchNorm1d):
    """A subclass with a forward of its own, which activates as well."""

    def forward(self, x):
        training = self.training or not self.track_running_stats
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        x = F.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum, self.eps)
        return F.relu(x)


class Dense(nn.Module):
    """A residual MLP with helpers and a dict as its output."""

    shape = (20,)
    places = ("stem", "blocks.0", "blocks.1")

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(20, 32, bias=False)
        self.stem = NormAct(32)
        self.inner = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(2))
        self.blocks = nn.ModuleList(NormAct(32) for _ in range(2))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(32, 5)

    def block(self, x, i):
        return x + self.drop(self.blocks[i](self.inner[i](x)))

    def forward(self, x):
        x = self.stem(self.fc(x))
        for i in range(2):
            x = self.block(x, i)
        return {"logits": self.head(x)}


class Sequence(nn.Module):
    """Convolutions over time, the norms in a dict, a recurrent layer behind."""

    shape = (6, 24)
    places = ("norms.a", "norms.b", "norms.c")

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(6, 16, 3, bias=False), nn.Conv1d(16, 24, 3, bias=False)
        self.norms = nn.ModuleDict(
            {"a": nn.BatchNorm1d(16), "b": nn.BatchNorm1d(24), "c": nn.SyncBatchNorm(24)}
        )
        self.rnn = nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = F.gelu(self.norms["a"](self.a(x)))
        x = F.silu(self.norms["b"](self.b(x)), inplace=True)
        _, last = self.rnn(x.transpose(1, 2))
        return self.head(self.norms["c"](last[0]))


NETS = (Plain, Functional, Dense, Sequence)


def made(build):
    torch.manual_seed(0)
    return build()


def batches(build, count=6, size=64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(count * size, generator=generator).reshape(-1, *[1] * len(build.shape)) + 0.5
    return list((torch.randn(count * size, *build.shape, generator=generator) * scale).split(size))


def logits(out):
    return out["logits"] if isinstance(out, dict) else out
