"""Initializations that look strange and are right: nothing may be said of any of them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check

init = nn.init
VECTOR, IMAGE, TOKENS = torch.zeros(4, 16), torch.zeros(2, 3, 32, 32), torch.zeros(2, 6, 16)
CASES = []
SELECT = ["ND4", "ND209", "ND504", "ND505", "ND511", "ND512", "ND122"]


def case(inputs):
    def register(cls):
        CASES.append(pytest.param(cls, inputs, id=cls.__name__))
        return cls

    return register


@pytest.mark.parametrize(("factory", "inputs"), CASES)
@pytest.mark.parametrize("live", [False, True])
def test_nothing_is_said(factory, inputs, live):
    for seed in range(3):
        torch.manual_seed(seed)
        report = check(factory() if live else factory, inputs=inputs, select=SELECT)
        assert not report.findings, [f"{one.code}: {one.message}" for one in report.findings]
        assert not report.problems


@case(VECTOR)
class ConvexProblem(nn.Linear):
    def __init__(self):
        super().__init__(16, 4)
        init.zeros_(self.weight)
        init.zeros_(self.bias)


@case(VECTOR)
class AdaLnZero(nn.Module):
    """DiT: the modulation starts at zero, so does the head."""

    def __init__(self):
        super().__init__()
        self.embed, self.modulate = nn.Linear(16, 16), nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16, elementwise_affine=False)
        self.up, self.down, self.head = nn.Linear(16, 64), nn.Linear(64, 16), nn.Linear(16, 8)
        for one in (self.modulate, self.head):
            init.zeros_(one.weight)
            init.zeros_(one.bias)

    def forward(self, c):
        x = self.embed(c)
        shift, scale, gate = self.modulate(F.silu(c)).chunk(3, dim=-1)
        x = x + gate * self.down(F.gelu(self.up(self.norm(x) * (1 + scale) + shift)))
        return self.head(x)


@case(IMAGE)
class ControlNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.hint = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)
        for one in (self.hint[2], self.out):
            init.zeros_(one.weight)
            init.zeros_(one.bias)

    def forward(self, x):
        y = self.stem(x)
        return self.head(y + self.out(self.body(F.silu(y + self.hint(x)))))


@case(TOKENS)
class TransformerStart(nn.Module):
    """Class token of zeros, layer scale 1e-6, positions with std 0.02, zero relative bias, zero head."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.position = nn.Parameter(torch.empty(1, 7, 16).normal_(std=0.02))
        self.norm, self.final = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.relative = nn.Parameter(torch.zeros(4, 7, 7))
        self.gamma = nn.Parameter(1e-6 * torch.ones(16))
        self.head = nn.Linear(16, 10)
        for one in (self.qkv, self.out, self.head):
            init.trunc_normal_(one.weight, std=0.02)
            init.zeros_(one.bias)
        init.zeros_(self.head.weight)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) * 0.5 + self.relative
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.head(self.final(x + self.gamma * self.out(y))[:, 0])


@case(VECTOR)
class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(16, 16).requires_grad_(False)
        self.a, self.b = nn.Linear(16, 4, bias=False), nn.Linear(4, 16, bias=False)
        self.head = nn.Linear(16, 4)
        init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        init.zeros_(self.b.weight)

    def forward(self, x):
        return self.head(self.base(x) + self.b(self.a(x)) * 2)


@case(VECTOR)
class Siren(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, 64) for a in (16, 64, 64, 64))
        self.head = nn.Linear(64, 1)
        for number, layer in enumerate(self.layers):
            bound = 1 / 16 if number == 0 else math.sqrt(6 / 64) / 30
            init.uniform_(layer.weight, -bound, bound)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sin(30 * layer(x))
        return self.head(x)


@case(VECTOR)
class Nerf(nn.Module):
    """Fixed frequencies, a deep default-initialized trunk with a skip, softplus density."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(16, 32) * 10)
        self.layers = nn.ModuleList(nn.Linear(64 if n == 0 else 128, 128) for n in range(8))
        self.density = nn.Linear(128, 1)

    def forward(self, x):
        x = 2 * math.pi * x @ self.frequencies
        x = torch.cat([x.sin(), x.cos()], -1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return F.softplus(self.density(x) - 1)


@case(TOKENS)
class OrthogonalRnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 4)
        for name, one in self.rnn.named_parameters():
            init.orthogonal_(one) if one.dim() > 1 else init.constant_(one, 1.0 if "ih" in name else 0.0)
        init.eye_(self.rnn.weight_hh_l0[:32].data)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


@case(IMAGE)
class Fixup(nn.Module):
    """No norms: first layers scaled down, last layers of branches zero, scalar biases and scales."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.one = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(6))
        self.two = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(6))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(6))
        self.scale = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in range(6))
        self.head = nn.Linear(32, 10)
        init.zeros_(self.head.weight)
        for one, two in zip(self.one, self.two, strict=True):
            init.normal_(one.weight, std=math.sqrt(2 / (32 * 9)) * 6**-0.5)
            init.zeros_(two.weight)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for one, two, bias, scale in zip(self.one, self.two, self.bias, self.scale, strict=True):
            x = F.relu(x + two(F.relu(one(x + bias))) * scale)
        return self.head(x.mean((2, 3)))


@case(VECTOR)
class RealNvp(nn.Module):
    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
            for _ in range(3)
        )
        for net in self.nets:
            init.zeros_(net[-1].weight)
            init.zeros_(net[-1].bias)

    def forward(self, x):
        a, b = x.chunk(2, -1)
        for net in self.nets:
            scale, shift = net(a).chunk(2, -1)
            a, b = b * torch.exp(torch.tanh(scale)) + shift, a
        return torch.cat([a, b], -1)


@case(IMAGE)
class Retina(nn.Module):
    """The prior of focal loss on the classification output, std 0.01 on the towers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
        self.tower = nn.ModuleList(nn.Conv2d(128, 128, 3, padding=1) for _ in range(4))
        self.score, self.box = nn.Conv2d(128, 9 * 4, 3, padding=1), nn.Conv2d(128, 36, 3, padding=1)
        for one in (*self.tower, self.score, self.box):
            init.normal_(one.weight, std=0.01)
            init.zeros_(one.bias)
        init.constant_(self.score.bias, -math.log(99))

    def forward(self, x):
        x = self.stem(x)
        for conv in self.tower:
            x = F.relu(conv(x))
        return self.score(x).sigmoid(), self.box(x)


@case(IMAGE)
class WganCritic(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (3, 64, 128, 256)
        self.convs = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1) for i in range(3))
        self.out = nn.Conv2d(256, 1, 4)
        for one in (*self.convs, self.out):
            init.normal_(one.weight, 0.0, 0.02)
            init.zeros_(one.bias)

    def forward(self, x):
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.out(x).flatten(1)


@case(torch.zeros(2, 16, 1, 1))
class DcganGenerator(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.ConvTranspose2d(16, 64, 4, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip
        for one in self.modules():
            if isinstance(one, nn.ConvTranspose2d):
                init.normal_(one.weight, 0.0, 0.02)
            elif isinstance(one, nn.BatchNorm2d):
                init.normal_(one.weight, 1.0, 0.02)


@case(VECTOR)
class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        init.sparse_(self.second.weight, sparsity=0.9, std=0.3)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


@case(IMAGE)
class Upsampler(nn.Module):
    """ICNR in front of a pixel shuffle, and a fixed bilinear kernel."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 64, 3, padding=1)
        self.shuffle, self.up = nn.PixelShuffle(2), nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16, bias=False)
        self.head = nn.Conv2d(16, 3, 3, padding=1)
        self.expand.weight.data = self.expand.weight.data[:16].repeat_interleave(4, 0)
        ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.up.weight.data.copy_(ramp[:, None] * ramp)

    def forward(self, x):
        return self.head(F.relu(self.up(self.shuffle(self.expand(F.relu(self.stem(x)))))))


@case(VECTOR)
class EqualizedRate(nn.Module):
    """StyleGAN: weights from randn, scaled in the forward."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(256, n)) for n in (16, 256, 256))
        self.head = nn.Linear(256, 4)

    def forward(self, x):
        for weight in self.weights:
            x = F.leaky_relu(F.linear(x, weight * (weight.shape[1] ** -0.5)), 0.2) * math.sqrt(2)
        return self.head(x)


@case(VECTOR)
class LinearAttentionPrior(nn.Module):
    """A zero-initialized gate of a highway, with its usual negative bias."""

    def __init__(self):
        super().__init__()
        self.lift, self.main, self.gate, self.head = (nn.Linear(16, n) for n in (16, 16, 16, 4))
        init.constant_(self.gate.bias, -3.0)

    def forward(self, x):
        x = torch.relu(self.lift(x))
        gate = torch.sigmoid(self.gate(x))
        return self.head(gate * torch.relu(self.main(x)) + (1 - gate) * x)


@case(torch.zeros(2, 5, dtype=torch.long))
class LanguageModel(nn.Module):
    """Tied embeddings with a padding row of zeros, std 0.02 throughout, scaled residual outputs."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 32, padding_idx=0)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(32, 128) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(128, 32) for _ in range(3))
        self.final, self.head = nn.LayerNorm(32), nn.Linear(32, 100, bias=False)
        for one in (self.embed, *self.up, *self.down):
            init.normal_(one.weight, std=0.02)
        for one in self.down:
            one.weight.data.div_(math.sqrt(6))
        self.embed.weight.data[0].zero_()
        self.embed.weight.data[5] = self.embed.weight.data[6]
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.head(self.final(x))


@case(VECTOR)
class Bootstrap(nn.Module):
    """BYOL: the target is a frozen copy of the online network."""

    def __init__(self):
        super().__init__()
        self.online, self.target = (self.net() for _ in range(2))
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.predict = nn.Linear(16, 16)

    @staticmethod
    def net():
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x):
        return self.predict(self.online(x)), self.target(x)


@case(VECTOR)
class Policy(nn.Module):
    """PPO: orthogonal with gain sqrt 2, a policy head with gain 0.01."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.actor, self.critic = nn.Linear(64, 6), nn.Linear(64, 1)
        self.log_std = nn.Parameter(torch.full((6,), -0.5))
        for one, gain in (
            (self.body[0], 2**0.5),
            (self.body[2], 2**0.5),
            (self.actor, 0.01),
            (self.critic, 1),
        ):
            init.orthogonal_(one.weight, gain)
            init.zeros_(one.bias)

    def forward(self, x):
        x = self.body(x)
        return self.actor(x), self.log_std.exp(), self.critic(x)


@case(VECTOR)
class IdentityRnn(nn.Module):
    """IRNN and dirac starts: identities are no constants."""

    def __init__(self):
        super().__init__()
        self.first, self.loop, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        init.eye_(self.loop.weight)
        init.zeros_(self.loop.bias)

    def forward(self, x):
        x = torch.relu(self.first(x))
        for _ in range(3):
            x = torch.relu(self.loop(x))
        return self.head(x)


def stack(*widths, act=nn.ReLU, bias=True):
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), act()]
    return nn.Sequential(*layers[:-1])


def drawn(model, draw):
    """A model whose weights are drawn anew, with biases of zero."""
    for one in model.modules():
        if isinstance(one, nn.Linear | nn.Conv2d):
            draw(one.weight)
            if one.bias is not None:
                init.zeros_(one.bias)
    return model


def normal(std):
    return lambda weight: init.normal_(weight, 0.0, std)


def published(inputs, name):
    def register(build):
        CASES.append(pytest.param(build, inputs, id=name))
        return build

    return register


@published(torch.zeros(2, 512), "VggClassifier")
def vgg_classifier():
    return drawn(stack(512, 128, 128, 10), normal(0.01))


@published(torch.zeros(2, 64), "MlpGan")
def mlp_gan():
    return drawn(stack(64, 128, 256, 512, 1024, 784), normal(0.02))


@published(torch.zeros(2, 256), "TwoLayersOf1e-4")
def two_layers():
    return drawn(stack(256, 100, 10), normal(1e-4))


@published(torch.zeros(2, 128), "XavierBeforeRelu")
def xavier_before_relu():
    return drawn(stack(*[128] * 21), init.xavier_uniform_)


@published(torch.zeros(2, 64), "DefaultWithoutBias")
def default_without_bias():
    return stack(*[64] * 9, bias=False)


@published(torch.zeros(2, 8), "StandardNormalInSmallLayers")
def small_layers():
    return drawn(stack(8, 32, 32, 2, act=nn.Tanh), normal(1.0))


@case(torch.zeros(2, 1, 16, 16))
class Srcnn(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 64, 9, padding=4), nn.ReLU(),
            nn.Conv2d(64, 32, 5, padding=2), nn.ReLU(),
            nn.Conv2d(32, 1, 5, padding=2),
        )  # fmt: skip
        drawn(self, normal(0.001))


@case(IMAGE)
class PlainDetector(Retina):
    """A tower behind a stem without norms, of torch's default."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
        )


class ScaledConv(nn.Module):
    """Weights from randn; the input is scaled in the forward (Progressive GAN)."""

    def __init__(self, into, out):
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, 1, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = math.sqrt(2 / (into * 9))
        init.normal_(self.conv.weight)

    def forward(self, x):
        return self.conv(x * self.scale) + self.bias.view(1, -1, 1, 1)


@case(IMAGE)
class Progressive(nn.Sequential):
    def __init__(self):
        blocks = [nn.Sequential(ScaledConv(a, 64), nn.LeakyReLU(0.2)) for a in (3, 64, 64)]
        super().__init__(*blocks, nn.Conv2d(64, 3, 1))


@case(torch.zeros(4, 64))
class RandomFourier(nn.Module):
    """A wide normal in front of a cosine, which knows no scale."""

    def __init__(self):
        super().__init__()
        self.features, self.hidden, self.head = nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 3)
        init.normal_(self.features.weight, 0.0, 10.0)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(torch.cos(self.features(x)))))


@case(IMAGE)
class Edsr(nn.Module):
    """No norms, branches scaled by 0.1."""

    def __init__(self):
        super().__init__()
        self.stem, self.tail = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 3, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
            for _ in range(8)
        )

    def forward(self, x):
        x = y = self.stem(x)
        for block in self.blocks:
            y = y + 0.1 * block(y)
        return self.tail(x + y)


@case(TOKENS)
class Vit(nn.Module):
    """Truncated normals of 0.02 whatever the width, and the MLP head of DINO."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 64, norm_first=True, batch_first=True, activation="gelu")
            for _ in range(3)
        )
        self.norm, self.project = nn.LayerNorm(16), stack(16, 256, 256, 64, act=nn.GELU)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(64, 32, bias=False))
        for one in self.modules():
            if isinstance(one, nn.Linear) and one is not self.last:
                init.trunc_normal_(one.weight, std=0.02)
                if one.bias is not None:
                    init.zeros_(one.bias)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.last(F.normalize(self.project(self.norm(x).mean(1)), dim=-1))
