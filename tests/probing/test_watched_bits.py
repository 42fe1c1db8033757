"""Twenty watched steps are those of twenty unwatched, bit for bit: weights, optimizer, random state, ..."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import normdoctor

STEPS = 20


class Tied(nn.Module):
    """A causal language model with tied weights, dropout and an output that is a dict."""

    def __init__(self, recompute=False):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.recompute = recompute

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return {"logits": self.head(self.norm(x)), "hidden": [x]}


class Inplace(nn.Module):
    """Residual convolutions with in-place activations, views that are written to, dropout of channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)
        )
        self.gate, self.drop, self.head = nn.Conv2d(8, 8, 1), nn.Dropout2d(0.2), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu_(self.stem(x))
        y = self.body(x)
        y += x
        y = F.leaky_relu(y, inplace=True) * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y[:, :2].mul_(0.5)
        return self.head(self.drop(y).flatten(2).mean(2))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 16, num_layers=2, dropout=0.2, batch_first=True)
        self.head = parametrizations.spectral_norm(nn.Linear(16, 5))

    def forward(self, ids):
        return self.head(torch.tanh(self.lstm(self.embedding(ids))[0][:, -1]))


class Shared(nn.Module):
    """One block three times, noise of its own, branches by random numbers, a norm over the batch."""

    def __init__(self):
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(12, 16))
        self.block = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.GELU())
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.first(x + 0.1 * torch.randn_like(x))
        for _ in range(3):
            if random.random() < 0.9:
                x = x + self.block(x)
        return self.head(x * float(np.random.rand() + 0.5))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.InstanceNorm2d(8, affine=True), nn.SiLU(inplace=True)
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(8, 8, 2, 2), nn.GroupNorm(2, 8), nn.Hardswish(inplace=True)
        )
        self.head = nn.Conv2d(11, 5, 1)

    def forward(self, x):
        return self.head(torch.cat((x, self.up(self.down(x))), 1)).mean((2, 3))


def images():
    return torch.randn(4, 3, 8, 8)


def words():
    return torch.randint(50, (4, 6))


NETS = {
    "tied": (Tied, words),
    "checkpointed": (lambda: Tied(recompute=True), words),
    "in place": (Inplace, images),
    "recurrent": (Recurrent, words),
    "shared": (Shared, lambda: torch.randn(6, 12)),
    "unet": (Unet, images),
}


def loss_of(out):
    scores = out["logits"].flatten(0, 1) if isinstance(out, dict) else out
    return F.cross_entropy(scores.float(), torch.randint(scores.shape[-1], (len(scores),)))


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def fused(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def lbfgs(model):
    return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)


def groups(model):
    parts = list(model.parameters())
    return torch.optim.RMSprop([{"params": parts[:2], "lr": 1e-3}, {"params": parts[2:], "lr": 1e-4}])


#: How it is trained: the optimizer, and what else is different.
WAYS = {
    "plain": (sgd, {}),
    "amp": (adamw, {"amp": torch.bfloat16}),
    "scaled": (adamw, {"amp": torch.float16}),
    "scaled and fused": (fused, {"amp": torch.float16, "clip": True}),
    "accumulated": (groups, {"accumulate": 3, "clip": True}),
    "closure": (lbfgs, {"closure": True}),
    "channels last": (sgd, {"layout": torch.channels_last}),
    "eager backend": (sgd, {"backend": "eager"}),
    "aot_eager": (sgd, {"backend": "aot_eager"}),
}
CASES = [
    *((net, "plain") for net in NETS),
    *((net, "amp") for net in ("tied", "in place", "checkpointed")),
    *((net, "scaled") for net in ("in place", "tied")),
    *((net, "scaled and fused") for net in ("in place", "unet")),
    *((net, "accumulated") for net in ("checkpointed", "recurrent", "shared")),
    *((net, "closure") for net in ("unet", "recurrent", "tied")),
    *((net, "channels last") for net in ("in place", "unet")),
    *((net, "eager backend") for net in ("tied", "in place")),
    *((net, "aot_eager") for net in ("unet", "in place")),
]


def trained(net, way, every):
    """All that a training leaves behind; watched where `every` is set."""
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    build, batch = NETS[net]
    make, settings = WAYS[way]
    model = build()
    if "layout" in settings:
        model = model.to(memory_format=settings["layout"])
    optimizer = make(model)
    call = torch.compile(model, backend=settings["backend"]) if "backend" in settings else model
    amp, share = settings.get("amp"), settings.get("accumulate", 1)
    scaler = torch.amp.GradScaler("cpu", enabled=amp is torch.float16, init_scale=2.0**10)
    scope = normdoctor.watch(call, optimizer, every=every, on_finding="ignore") if every else nullcontext()
    losses = []
    with scope as w:
        for _ in range(STEPS):
            x = batch()
            x = x.to(memory_format=settings["layout"]) if "layout" in settings else x

            def backward(x=x, share=share):
                optimizer.zero_grad()
                for _ in range(share):
                    with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
                        loss = loss_of(call(x))
                    scaler.scale(loss / share).backward()
                return loss

            if "closure" in settings:
                loss = optimizer.step(backward)
            else:
                loss = backward()
                if settings.get("clip"):
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
            losses.append(loss.detach())
            if w is not None:
                w.step(loss)
    left = {
        "losses": torch.stack(losses),
        "weights": model.state_dict(),
        "gradients": [one.grad for one in model.parameters()],
        "optimizer": optimizer.state_dict(),
        "scale": scaler.state_dict(),
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()),
        "attributes": [sorted(vars(one)) for one in model.modules()],
        "hooks": [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()],
    }
    return left, w


def same(one, other, place=""):
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride()), place
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key in one:
            same(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{place}/{index}")
    else:
        assert one == other, place


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("net", "way"), CASES)
def test_bit_for_bit(net, way, every):
    torch.compiler.reset()
    unwatched, _ = trained(net, way, None)
    torch.compiler.reset()
    watched, w = trained(net, way, every)
    same(unwatched, watched)
    assert w.observed == -(-STEPS // every)
    gradients = w.measurements()["gradients"]
    assert any(figures["seen"] == figures["looks"] > 0 for figures in gradients.values())


def test_the_comparison_sees_a_difference():
    one, _ = trained("tied", "plain", None)
    other, _ = trained("tied", "plain", None)
    same(one, other)
    other["optimizer"]["state"][0]["momentum_buffer"][0, 0] += 1e-7
    with pytest.raises(AssertionError, match="optimizer/state/0/momentum_buffer"):
        same(one, other)
