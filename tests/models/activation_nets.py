"""Small healthy nets of five styles, whose layers are reached by one name: tests plant faults in them.

Each has `layers`, the layers with weights in front of a hidden activation, in the order in which they run,
and `act`, the activation: a name of torch.nn.functional's. `place(k)` is the
module behind layer k, empty for a function.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

ACTS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}


def start(layer: nn.Module) -> None:
    """He's initialization, biases at zero."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class Sequential(nn.Sequential):
    """Modules alone, no norm."""

    shape = (64, 24)

    def __init__(self, act="relu"):
        wide = [24, 48, 48, 48, 48, 48]
        pairs = [[nn.Linear(a, b), ACTS[act]()] for a, b in itertools.pairwise(wide)]
        super().__init__(*(module for pair in pairs for module in pair), nn.Linear(48, 5))
        self.apply(start)

    @property
    def layers(self):
        return [module for module in self if isinstance(module, nn.Linear)][:-1]

    def place(self, k):
        return str(2 * k + 1)


class Residual(nn.Module):
    """A convolutional net without norms whose activations are functions, with skips."""

    shape = (8, 3, 12, 12)

    def __init__(self, act="relu"):
        super().__init__()
        self.act = getattr(F, act)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.second = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.narrow = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24, 5)
        self.apply(start)
        with torch.no_grad():
            for conv in self.second:
                conv.weight.mul_(0.5)

    @property
    def layers(self):
        return [self.stem, *self.first, self.narrow]

    def place(self, k):
        return ""

    def block(self, x, k):
        return x + self.second[k](self.act(self.first[k](x)))

    def forward(self, x):
        x = self.act(self.stem(x))
        for k in range(3):
            x = self.block(x, k)
        return self.head(self.act(self.narrow(x)).mean((2, 3)))


class Attention(nn.Module):
    """Pre-norm self-attention, written out, as in nanoGPT."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(-1)
        return x + self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class Feedforward(nn.Module):
    """Pre-norm MLP of a transformer."""

    def __init__(self, dim, act):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = ACTS[act]()
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return x + self.fc2(self.act(self.fc1(self.norm(x))))


class Transformer(nn.Module):
    """A small vision transformer: patches, a class token, positions."""

    shape = (8, 3, 16, 16)

    def __init__(self, act="relu"):
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32) * 0.02)
        blocks = [nn.Sequential(Attention(32, 4), Feedforward(32, act)) for _ in range(4)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 5)
        for name, weight in self.named_parameters():
            if name.endswith("weight") and weight.dim() == 2:
                nn.init.trunc_normal_(weight, std=0.1)

    @property
    def layers(self):
        return [block[1].fc1 for block in self.blocks]

    def place(self, k):
        return f"blocks.{k}.1.act"

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Mixer(nn.Module):
    """An MLP-Mixer in functional style: parameters in lists, norms and layers as functions."""

    shape = (16, 12, 20)

    def __init__(self, act="relu"):
        super().__init__()
        self.act = getattr(torch, act, None) or getattr(F, act)
        self.tokens = nn.ModuleList(nn.Linear(12, 24) for _ in range(4))
        self.back = nn.ModuleList(nn.Linear(24, 12) for _ in range(4))
        self.channels = nn.ModuleList(nn.Linear(20, 40) for _ in range(4))
        self.down = nn.ModuleList(nn.Linear(40, 20) for _ in range(4))
        self.gains = nn.ParameterList(torch.ones(20) for _ in range(8))
        self.head = nn.Linear(20, 5)

    @property
    def layers(self):
        return [layer for pair in zip(self.tokens, self.channels, strict=True) for layer in pair]

    def place(self, k):
        return ""

    def forward(self, x):
        for k in range(4):
            y = F.layer_norm(x, (20,), self.gains[2 * k]).transpose(1, 2)
            y = F.linear(y, self.tokens[k].weight, self.tokens[k].bias)
            x = x + self.back[k](self.act(y)).transpose(1, 2)
            y = F.layer_norm(x, (20,), self.gains[2 * k + 1])
            x = x + self.down[k](self.act(self.channels[k](y)))
        return self.head(F.layer_norm(x, (20,)).mean(1))


class Recurrent(nn.Module):
    """A recurrent net written by hand, unrolled over its steps: one layer, many calls."""

    shape = (32, 6, 10)

    def __init__(self, act="tanh"):
        super().__init__()
        self.act = getattr(torch, act, None) or getattr(F, act)
        self.embed = nn.Linear(10, 32)
        self.into = nn.Linear(32, 32)
        self.over = nn.Linear(32, 32, bias=False)
        self.head = nn.Linear(32, 5)
        nn.init.orthogonal_(self.over.weight)

    @property
    def layers(self):
        return [self.embed, self.into]

    def place(self, k):
        return ""

    def forward(self, x):
        h = x.new_zeros(len(x), 32)
        for t in range(x.shape[1]):
            h = self.act(self.into(self.act(self.embed(x[:, t]))) + self.over(h))
        return self.head(h)


NETS = [Sequential, Residual, Transformer, Mixer]


def made(net, act="relu", seed=0):
    """A net and four batches for it."""
    torch.manual_seed(seed)
    model = net(act)
    return model, [torch.randn(net.shape) for _ in range(4)]
