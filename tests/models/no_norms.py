"""What looks like a norm and is none: one function of a module and its input each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

TOKENS = (4, 6, 8)
IMAGES = (4, 8, 5, 7)
OTHERS: dict[str, tuple[Any, tuple[int, ...]]] = {}


def other(shape: tuple[int, ...]) -> Any:
    """Note a function."""

    def note(function: Any) -> Any:
        OTHERS[function.__name__] = (function, shape)
        return function

    return note


@other(TOKENS)
def l1(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / x.abs().sum(-1, keepdim=True)


@other(TOKENS)
def soft(m: Any, x: torch.Tensor) -> torch.Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


@other(TOKENS)
def attn(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x @ x.transpose(1, 2) / 8**0.5, -1) @ x


@other(IMAGES)
def grn(m: Any, x: torch.Tensor) -> torch.Tensor:
    g = x.norm(p=2, dim=(2, 3), keepdim=True)
    nx = g / (g.mean(1, keepdim=True) + 1e-6)
    return x * nx * m.gc + m.bc + x


@other(IMAGES)
def se(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


@other(IMAGES)
def srm(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean((2, 3), keepdim=True)
    sd = x.std((2, 3), keepdim=True)
    return x * torch.sigmoid(mu + sd)


@other(IMAGES)
def simam(m: Any, x: torch.Tensor) -> torch.Tensor:
    d = (x - x.mean((2, 3), keepdim=True)).pow(2)
    v = d.sum((2, 3), keepdim=True) / 34
    return x * torch.sigmoid(d / (4 * (v + 1e-4)) + 0.5)


@other(TOKENS)
def squash(m: Any, x: torch.Tensor) -> torch.Tensor:
    s2 = (x**2).sum(-1, keepdim=True)
    return s2 / (1 + s2) * x / torch.sqrt(s2 + 1e-8)


@other(TOKENS)
def weightstd(m: Any, x: torch.Tensor) -> torch.Tensor:
    w = m.fc.weight
    w = (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5)
    return F.linear(x, w, m.fc.bias)


@other(IMAGES)
def stdpool(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


@other(IMAGES)
def evo(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(m.gc * x) / torch.sqrt(x.var((2, 3), keepdim=True) + 1e-5)


@other(TOKENS)
def const(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - 0.45) / 0.225


@other(TOKENS)
def dist(m: Any, x: torch.Tensor) -> torch.Tensor:
    d = ((x[:, None] - x[:, :, None]) ** 2).sum(-1).sqrt()
    return d


@other(TOKENS)
def minmax(m: Any, x: torch.Tensor) -> torch.Tensor:
    lo = x.amin(-1, keepdim=True)
    return (x - lo) / (x.amax(-1, keepdim=True) - lo + 1e-5)


@other(IMAGES)
def demod(m: Any, x: torch.Tensor) -> torch.Tensor:
    s = m.fc(x.mean((2, 3)))
    w = torch.ones(1, 8, 8, 1, 1) * m.g.view(1, 8, 1, 1, 1) * s[:, None, :, None, None]
    w = w * torch.rsqrt(w.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
    return F.conv2d(x.reshape(1, -1, 5, 7), w.reshape(-1, 8, 1, 1), groups=4)


@other(TOKENS)
def softplusgate(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sqrt(torch.relu(x) + 1)


@other(TOKENS)
def meandiv(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / (x.mean(-1, keepdim=True) + 1e-5)


@other(TOKENS)
def weight_standardized_by_batch_norm(m: Any, x: torch.Tensor) -> torch.Tensor:
    w = F.batch_norm(m.fc.weight.reshape(1, 8, -1), None, None, training=True).reshape(8, 8)
    return F.linear(x, w, m.fc.bias)


@other(TOKENS)
def cosine_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(F.normalize(m.fc(x), dim=-1) @ F.normalize(x, dim=-1).transpose(1, 2), dim=-1) @ x


@other(IMAGES)
def efficient_channel_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = x.mean((2, 3)).unsqueeze(1)
    y = F.conv1d(y, m.g.view(1, 1, -1)[..., :3], padding=1)
    return x * torch.sigmoid(y).transpose(1, 2).unsqueeze(-1)


@other(TOKENS)
def act_norm(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x + m.b) * torch.exp(m.g)


@other(TOKENS)
def standardized_input(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor([0.5] * 8)) / torch.tensor([0.2] * 8)


@other(TOKENS)
def linear_attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    k = F.elu(x) + 1
    return (k @ (k.transpose(1, 2) @ x)) / (k @ k.sum(1, keepdim=True).transpose(1, 2) + 1e-6)


@other(TOKENS)
def residual_scaled(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x + m.fc(x)) / 2**0.5
