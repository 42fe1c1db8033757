"""Norms in many spellings, each with what it is: one function of a module and its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

TOKENS = (4, 6, 8)
IMAGES = (4, 8, 5, 7)
FLAT = (6, 8)


class Spelled(nn.Module):
    """Calls one function on itself and its input; it holds what the functions need."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor], channels: int = 8) -> None:
        super().__init__()
        self.spelled = forward
        self.g = nn.Parameter(torch.ones(channels))
        self.b = nn.Parameter(torch.zeros(channels))
        self.gc = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.spelled(self, x))


class Norm(NamedTuple):
    """What a spelling is: see `normdoctor.facts.HandwrittenNorm`."""

    kind: str
    reduced: tuple[int, ...]
    eps: float | None = None
    place: str = "inside"
    unbiased: bool | None = False
    centred: bool = True


SPELLINGS: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], tuple[int, ...], Norm]] = {}


def spells(shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
    """Note a function as a spelling of a norm."""

    def note(function: Any) -> Any:
        SPELLINGS[function.__name__] = (function, shape, Norm(*args, **kwargs))
        return function

    return note


RMS: dict[str, Any] = {"unbiased": None, "centred": False}


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def ln_plain(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean(-1, keepdim=True)
    v = ((x - mu) ** 2).mean(-1, keepdim=True)
    return (x - mu) / torch.sqrt(v + 1e-5) * m.g + m.b


@spells(TOKENS, "layer_norm", (2,), 1e-06, place="outside", unbiased=True)
def annotated(m: Any, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    std = x.std(-1, keepdim=True)
    return m.g * (x - mean) / (std + 1e-6) + m.b


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def var_mean(m: Any, x: torch.Tensor) -> torch.Tensor:
    v, mu = torch.var_mean(x, dim=-1, unbiased=False, keepdim=True)
    return (x - mu) * torch.rsqrt(v + 1e-5) * m.g + m.b


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def moments(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean(-1, keepdim=True)
    v = (x * x).mean(-1, keepdim=True) - mu * mu
    return (x - mu) / (v + 1e-5) ** 0.5 * m.g + m.b


@spells(TOKENS, "rms_norm", (2,), 1e-06, **RMS)
def llama(m: Any, x: torch.Tensor) -> torch.Tensor:
    d = x.dtype
    x = x.to(torch.float32)
    v = x.pow(2).mean(-1, keepdim=True)
    x = x * torch.rsqrt(v + 1e-6)
    return m.g * x.to(d)


@spells(TOKENS, "rms_norm", (2,), 1e-06, **RMS)
def gemma(m: Any, x: torch.Tensor) -> torch.Tensor:
    o = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
    return (o * (1.0 + m.g.float())).type_as(x)


@spells(TOKENS, "rms_norm", (2,), 1e-08, place="outside", **RMS)
def rms_norm_call(m: Any, x: torch.Tensor) -> torch.Tensor:
    n = x.norm(2, dim=-1, keepdim=True)
    rms = n * 8**-0.5
    return m.g * (x / (rms + 1e-8))


@spells(TOKENS, "rms_norm", (2,), 1e-12, place="clamp", **RMS)
def lucid(m: Any, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1) * 8**0.5 * m.g


@spells(TOKENS, "normalize", (2,), place="none", **RMS)
def clip(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(p=2, dim=-1, keepdim=True)


@spells(TOKENS, "normalize", (2,), 1e-08, place="outside", **RMS)
def linalg(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / (torch.linalg.norm(x, dim=-1, keepdim=True) + 1e-8)


@spells(TOKENS, "normalize", (2,), 1e-08, place="clamp", **RMS)
def clampn(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-8)


@spells(TOKENS, "normalize", (2,), 1e-10, **RMS)
def sumsq(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt((x**2).sum(-1, keepdim=True) + 1e-10)


@spells(IMAGES, "layer_norm", (1,), 1e-06)
def ln2d(m: Any, x: torch.Tensor) -> torch.Tensor:
    u = x.mean(1, keepdim=True)
    v = (x - u).pow(2).mean(1, keepdim=True)
    x = (x - u) / torch.sqrt(v + 1e-6)
    return m.g[:, None, None] * x + m.b[:, None, None]


@spells(IMAGES, "rms_norm", (1,), 1e-08, **RMS)
def pixel(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


@spells(IMAGES, "rms_norm", (1,), 1e-08, **RMS)
def pixel2(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


@spells(IMAGES, "instance_norm", (2, 3), 1e-05)
def inorm(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean((2, 3), keepdim=True)
    v = x.var((2, 3), keepdim=True, unbiased=False)
    return (x - mu) / (v + 1e-5).sqrt() * m.gc + m.bc


@spells(IMAGES, "instance_norm", (2, 3), 1e-05, unbiased=True)
def adain(m: Any, x: torch.Tensor) -> torch.Tensor:
    n, c = x.shape[:2]
    v = x.view(n, c, -1).var(2) + 1e-5
    sd = v.sqrt().view(n, c, 1, 1)
    mu = x.view(n, c, -1).mean(2).view(n, c, 1, 1)
    return (x - mu.expand(x.size())) / sd.expand(x.size())


@spells(IMAGES, "group_norm", (1, 2, 3), 1e-05)
def gnorm(m: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.view(n, 4, -1)
    mu = y.mean(-1, keepdim=True)
    v = y.var(-1, keepdim=True, unbiased=False)
    y = (y - mu) / torch.sqrt(v + 1e-5)
    return y.view(n, c, h, w) * m.gc + m.bc


@spells(IMAGES, "group_norm", (1, 2, 3), 1e-05, unbiased=True)
def gnorm5(m: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.reshape(n, 2, c // 2, h, w)
    mu = y.mean((2, 3, 4), keepdim=True)
    v = y.var((2, 3, 4), keepdim=True)
    return ((y - mu) / (v + 1e-5).sqrt()).reshape(n, c, h, w) * m.gc + m.bc


@spells(IMAGES, "batch_norm", (0, 2, 3), 1e-05)
def bnorm(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean((0, 2, 3), keepdim=True)
    v = ((x - mu) ** 2).mean((0, 2, 3), keepdim=True)
    return m.gc * ((x - mu) / torch.sqrt(v + 1e-5)) + m.bc


@spells(FLAT, "batch_norm", (0,), 1e-05)
def bn1(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean(0)
    v = ((x - mu) ** 2).mean(0)
    return m.g * (x - mu) / torch.sqrt(v + 1e-5) + m.b


@spells(IMAGES, "batch_norm", (0, 2, 3), 1e-05)
def bnview(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean((0, 2, 3))
    v = x.var((0, 2, 3), unbiased=False)
    return (x - mu[None, :, None, None]) / torch.sqrt(v[None, :, None, None] + 1e-5) * m.gc + m.bc


@spells(IMAGES, "layer_norm", (1, 2, 3), 1e-05, place="outside", unbiased=True)
def lnall(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.view(x.size(0), -1).mean(1).view(-1, 1, 1, 1)
    sd = x.view(x.size(0), -1).std(1).view(-1, 1, 1, 1)
    return (x - mu) / (sd + 1e-5) * m.gc + m.bc


@spells(IMAGES, "layer_norm", (1,), 1e-05)
def permuted(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = x.permute(0, 2, 3, 1)
    mu = y.mean(-1, keepdim=True)
    v = y.var(-1, keepdim=True, unbiased=False)
    y = (y - mu) / torch.sqrt(v + 1e-5) * m.g + m.b
    return y.permute(0, 3, 1, 2)


@spells(IMAGES, "rms_norm", (2, 3), 1e-06, **RMS)
def frn(m: Any, x: torch.Tensor) -> torch.Tensor:
    nu2 = torch.mean(x.pow(2), dim=[2, 3], keepdim=True)
    x = x * torch.rsqrt(nu2 + 1e-6)
    return m.gc * x + m.bc


@spells(TOKENS, "layer_norm", (2,), place="none", unbiased=True)
def noeps(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


@spells(TOKENS, "", (2,), place="none", unbiased=True, centred=False)
def xdivstd(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x / x.std(-1, keepdim=True)


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def inv(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean(-1, keepdim=True)
    v = x.var(-1, keepdim=True, unbiased=False)
    return (x - mu) / torch.rsqrt(v + 1e-5) * m.g + m.b


@spells(TOKENS, "rms_norm", (2,), 1e-06, **RMS)
def einsum_rms(m: Any, x: torch.Tensor) -> torch.Tensor:
    v = torch.einsum("btc,btc->bt", x, x) / 8
    return x * torch.rsqrt(v + 1e-6)[..., None] * m.g


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def inplace_rebind(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x - x.mean(-1, keepdim=True)
    x /= torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    x = x * m.g
    x += m.b
    return x


@spells(TOKENS, "layer_norm", (2,), 1e-05)
def recip(m: Any, x: torch.Tensor) -> torch.Tensor:
    v, mu = torch.var_mean(x, -1, correction=0, keepdim=True)
    return torch.addcmul(m.b, m.g, (x - mu) * (1.0 / (v + 1e-5).sqrt()))


@spells(TOKENS, "", (0, 1, 2), place="none", unbiased=True)
def whole(m: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean()) / x.std()


@spells(TOKENS, "instance_norm", (1,), 1e-05)
def revin(m: Any, x: torch.Tensor) -> torch.Tensor:
    mu = x.mean(1, keepdim=True).detach()
    sd = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5).detach()
    return (x - mu) / sd * m.g + m.b


@spells((2, 300, 256), "rms_norm", (2,), 1e-06, **RMS)
def big(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


@spells((2, 32, 64, 64), "group_norm", (1, 2, 3), 1e-05)
def biggn(m: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.view(n, 8, -1)
    v, mu = torch.var_mean(y, -1, keepdim=True, correction=0)
    return ((y - mu) / torch.sqrt(v + 1e-5)).view(n, c, h, w)


@spells((1, 6, 8), "layer_norm", (2,), 1e-05)
def batch1(m: Any, x: torch.Tensor) -> torch.Tensor:
    v, mu = torch.var_mean(x, -1, correction=0, keepdim=True)
    return (x - mu) * (v + 1e-5).rsqrt() * m.g
