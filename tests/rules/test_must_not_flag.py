"""Legitimate constructs that naive rules report by mistake: no warning and no error may come from them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check
from normdoctor.findings import Severity

IMAGE = torch.zeros(2, 3, 32, 32)
MAP = torch.zeros(2, 16, 8, 8)
TOKENS = torch.zeros(2, 6, 16)
VECTOR = torch.zeros(4, 16)

CASES = []


def case(*inputs, info=()):
    """Register a model class with its inputs and the codes of informations that are right for it."""

    def register(cls):
        CASES.append(pytest.param(cls, inputs, frozenset(info), id=cls.__name__))
        return cls

    return register


@pytest.mark.parametrize(("factory", "inputs", "info"), CASES)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_is_said(factory, inputs, info, mode):
    model = factory if mode == "train" else factory().eval()
    report = check(model, inputs=inputs)
    loud = [f for f in report.findings if f.severity is not Severity.INFO or f.code not in info]
    assert not loud, [f"{f.code} {f.severity}: {f.message}" for f in loud]
    assert not report.problems, report.problems


def test_frozen_norms_are_silent_while_the_model_trains():
    assert not check(FrozenBackbone, inputs=IMAGE).findings


def conv_bn(inner, outer, kernel=3, act=True, **fields):
    layers = [
        nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False, **fields),
        nn.BatchNorm2d(outer),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class InvertedResidual(nn.Module):
    def __init__(self, inner, outer, hidden, gate=True):
        super().__init__()
        self.expand = conv_bn(inner, hidden, 1) if hidden != inner else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, 3, groups=hidden)
        self.gate = SqueezeExcite(hidden) if gate else nn.Identity()
        self.project = conv_bn(hidden, outer, 1, act=False)
        self.skip = inner == outer

    def forward(self, x):
        out = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + out if self.skip else out


class SqueezeExcite(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.reduce = nn.Conv2d(width, max(width // 4, 4), 1)
        self.expand = nn.Conv2d(max(width // 4, 4), width, 1)

    def forward(self, x):
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = F.relu(self.reduce(scale), inplace=True)
        return x * F.hardsigmoid(self.expand(scale))


@case(IMAGE)
class LinearBottlenecks(nn.Sequential):
    """MobileNetV2/V3, also with an expansion of 1 and widths for which the pair is not low-rank."""

    def __init__(self):
        super().__init__(
            conv_bn(3, 16),
            InvertedResidual(16, 16, 16),
            InvertedResidual(16, 24, 72, gate=False),
            InvertedResidual(24, 24, 88),
            conv_bn(24, 96, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 10),
        )


@case(MAP)
class SeparableWithoutActivation(nn.Sequential):
    """Xception and ShuffleNetV2: depthwise and pointwise without an activation between."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(16, 16, 3, groups=16, bias=False),
            nn.Conv2d(16, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 32, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
        )


@case(MAP)
class PreActivation(nn.Module):
    """Norm, in-place activation, convolution; the shortcut takes the activated tensor."""

    def __init__(self):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(16, 16, 1, bias=False)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        out = self.relu(self.bn1(x))
        skip = self.shortcut(out)
        return skip + self.conv2(self.relu(self.bn2(self.conv1(out))))


@case(MAP)
class PostActivation(nn.Module):
    """The ResNet block: in-place ReLU of a sum, zero gamma on the last norm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = conv_bn(16, 16), conv_bn(16, 16, act=False)
        self.relu = nn.ReLU(inplace=True)
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x):
        for _ in range(1):
            out = self.second(self.first(x))
            out += x
            x = self.relu(out)
        return x


@case(MAP)
class ActivatedSkip(nn.Module):
    """The in-place result is used under its own name, twice, on purpose."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.one, self.two = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        x = self.relu(self.one(x))
        x = F.relu(x + self.two(x), inplace=True)
        y = self.one(x)
        F.relu_(y)
        y.clamp_(max=6)
        return x + y


@case(MAP)
class CellOfBranches(nn.Module):
    """DARTS: two branches that both begin with an in-place ReLU of the same state."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(16, 16, 1))
        self.two = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, padding=1))

    def forward(self, x):
        x = torch.tanh(x) + x
        return torch.cat([self.one(x), self.two(x)], 1)


@case(MAP)
class RectifiedInput(nn.Module):
    """An in-place ReLU of what is not negative changes nothing."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(16, 16)
        self.branch = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, padding=1))

    def forward(self, x):
        x = self.stem(x)
        return x + self.branch(x)


@case(MAP)
class DenseBlock(nn.Module):
    """DenseNet: dropout in front of a concatenation that goes into a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(16 + 8 * i),
                nn.ReLU(inplace=True),
                nn.Conv2d(16 + 8 * i, 8, 3, padding=1, bias=False),
                nn.Dropout(0.2),
            )
            for i in range(3)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


@case(MAP)
class WideResidual(nn.Sequential):
    """Dropout between two convolutions, as in wide residual networks; alpha dropout; p = 0."""

    def __init__(self):
        super().__init__(
            conv_bn(16, 16), nn.Dropout(0.3), conv_bn(16, 16), nn.AlphaDropout(0.2), nn.BatchNorm2d(16),
            nn.ReLU(), nn.Dropout(0.0), nn.BatchNorm2d(16),
        )  # fmt: skip


class Lora(nn.Linear):
    def __init__(self, inner, outer, rank=4):
        super().__init__(inner, outer)
        self.weight.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, inner))
        self.b = nn.Parameter(torch.zeros(outer, rank))
        self.down, self.up = nn.Linear(inner, rank, bias=False), nn.Linear(rank, outer, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return (
            super().forward(x)
            + x @ self.a.T @ self.b.T
            + F.dropout(self.up(self.down(x)), 0.1, self.training)
        )


@case(TOKENS)
class Attention(nn.Module):
    """q, k, v and output projections, relative position bias, LoRA, a layer scale and a temperature."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 7, width))
        self.bias = nn.Parameter(torch.zeros(heads, 7, 7))
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = Lora(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, 10)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) * self.temperature + self.bias).softmax(-1)
        y = (self.drop(attention) @ v).transpose(1, 2).flatten(2)
        x = x + self.drop(self.out(y)) * self.scale
        return self.head(x[:, 0])


@case(TOKENS)
class TorchTransformer(nn.Module):
    """torch's own layers, in both orders of the norm."""

    def __init__(self):
        super().__init__()
        self.pre = nn.TransformerEncoderLayer(16, 2, 32, norm_first=True, batch_first=True)
        self.post = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
        )
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        x = self.post(self.pre(x))
        return self.attention(x, x, x, need_weights=False)[0]


@case(TOKENS)
class LatentAttention(nn.Module):
    """Low-rank key-value projections (MLA) and a factorized embedding (ALBERT)."""

    def __init__(self):
        super().__init__()
        self.embed, self.widen = nn.Embedding(32, 8), nn.Linear(8, 16)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 32, bias=False)
        self.query, self.out = nn.Linear(16, 16), nn.Linear(16, 16)
        nn.init.zeros_(self.query.weight)

    def forward(self, x):
        x = x + self.widen(self.embed(torch.zeros(2, 6, dtype=torch.long, device=x.device)))
        k, v = self.up(self.down(x)).chunk(2, -1)
        return self.out(F.scaled_dot_product_attention(self.query(x), k, v))


@case(VECTOR, torch.zeros(4, 16))
class AdaptiveNormZero(nn.Module):
    """adaLN-Zero and a ControlNet-like zero convolution."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(16, 48))
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.zero = nn.Linear(16, 16)
        self.head = nn.Linear(16, 16)
        for layer in (self.modulation[1], self.zero, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, condition):
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        x = x + self.zero(condition)
        x = x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)
        return self.head(x)


@case(IMAGE)
class Inception(nn.Sequential):
    """eps and momentum of TensorFlow ports and of MNASNet; kernels of 1 x 7 and 7 x 1."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16, eps=1e-3, momentum=3e-4), nn.ReLU(),
            nn.Conv2d(16, 16, (1, 7), padding=(0, 3), bias=False),
            nn.Conv2d(16, 16, (7, 1), padding=(3, 0), bias=False),
            nn.BatchNorm2d(16, eps=1e-2, momentum=None), nn.ReLU(),
            nn.Conv2d(16, 16, 1, bias=False), nn.InstanceNorm2d(16, momentum=0.99), nn.ReLU(),
        )  # fmt: skip


@case(IMAGE)
class ConvMixer(nn.Module):
    """Activation in front of the norm; biases then are not cancelled."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.BatchNorm2d(16))
        self.depth = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.GELU(), nn.BatchNorm2d(16))
        self.point = nn.Sequential(nn.Conv2d(16, 16, 1), nn.GELU(), nn.BatchNorm2d(16))

    def forward(self, x):
        x = self.stem(x)
        return self.point(x + self.depth(x))


@case(MAP)
class FeaturePyramid(nn.Module):
    """Lateral and output convolutions without an activation; a head that is shared, with norms of its own."""

    def __init__(self):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.output = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x):
        top = self.lateral[0](F.max_pool2d(x, 2))
        low = self.lateral[1](x) + F.interpolate(top, scale_factor=2.0)
        levels = [conv(y) for conv, y in zip(self.output, (top, low), strict=True)]
        return [F.relu(norm(self.head(y))) for norm, y in zip(self.norms, levels, strict=True)]


@case(IMAGE)
class SuperResolution(nn.Module):
    """EDSR: convolution, pixel shuffle, convolution; a skip over the whole body."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(True), nn.Conv2d(16, 16, 3, padding=1)
        )
        self.tail = nn.Sequential(
            nn.Conv2d(16, 64, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, padding=1)
        )

    def forward(self, x):
        x = self.head(x)
        return self.tail(x + self.body(x))


@case(TOKENS)
class GraphAttention(nn.Module):
    """Scores that are bent in front of their softmax; an adjacency that is learned."""

    def __init__(self):
        super().__init__()
        self.transform, self.score = nn.Linear(16, 8), nn.Linear(8, 1)
        self.left, self.right = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        h = self.transform(x)
        adjacency = F.softmax(F.relu(self.left @ self.right), dim=1)
        weight = F.softmax(torch.tanh(self.score(h)), dim=1)
        return (adjacency @ h * weight).sum(1)


@case(VECTOR)
class ActivationsByHand(nn.Module):
    """mish, swish, hard-swish, GLU and DyT in the spelling of papers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(5))
        self.alpha = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x):
        x = self.layers[0](x)
        x = x * torch.tanh(F.softplus(x))
        x = self.layers[1](x)
        x = x * torch.sigmoid(x)
        x = self.layers[2](x)
        x = x * F.relu6(x + 3) / 6
        a, b = self.layers[3](x).chunk(2, -1)
        x = F.relu(a)
        x = torch.cat([x * torch.sigmoid(b), b], -1)
        return self.layers[4](torch.tanh(self.alpha * x))


@case(TOKENS)
class Recurrent(nn.Module):
    """An LSTM by torch and a cell by hand."""

    def __init__(self):
        super().__init__()
        self.lstm, self.norm = nn.LSTM(16, 16, batch_first=True), nn.LayerNorm(16)
        self.gates, self.out = nn.Linear(32, 64), nn.Linear(16, 10)

    def forward(self, x):
        x = self.norm(self.lstm(x)[0])
        h = c = x[:, 0] * 0
        for t in range(3):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], -1)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


@case(IMAGE, info={"ND105"})
class Siamese(nn.Module):
    """A whole branch that is called twice."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.encoder(x), self.encoder(x.flip(-1))


@case(IMAGE, info={"ND105"})
class SiamesePreActivation(nn.Module):
    """The norm comes first in the branch: the layers in front of it differ, the branch is one."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.branch = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))

    def forward(self, x):
        return self.branch(F.relu(self.left(x))), self.branch(F.relu(self.right(x)))


@case(IMAGE, info={"ND101", "ND105"})
class FrozenBackbone(nn.Module):
    """Norms in eval mode in a model that trains: a bias is not cancelled, momentum means nothing."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8, momentum=0.0)
        self.more = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
        self.shared = nn.BatchNorm2d(8)
        self.train()

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        self.shared.eval()
        return self

    def forward(self, x):
        x = self.more(self.norm(self.conv(x)))
        return self.shared(x) + self.shared(x.flip(-1))


@case(VECTOR)
class Generator(nn.Module):
    """DCGAN: a linear layer, reshaped into maps; its bias belongs to features, not channels."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(16, 8 * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(True), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z):
        return self.body(self.project(z).view(-1, 8, 4, 4))


class TokensAsChannels(nn.Module):
    """BatchNorm1d over the tokens of (N, T, C) with T = C: it does not cancel the bias of C features."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)

    def forward(self, x):
        return F.relu(self.norm(self.linear(x)))


def test_a_norm_over_tokens_cancels_no_bias():
    found = check(TokensAsChannels, inputs=torch.zeros(4, 16, 16)).findings
    assert {finding.code for finding in found} == {"ND116"}


class StandardizedConv(nn.Conv2d):
    def forward(self, x):
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0, eps=1e-6
        ).reshape_as(self.weight)
        return self._conv_forward(x, weight, self.bias)


@case(IMAGE)
class WeightStandardization(nn.Sequential):
    """F.batch_norm of a weight is no layer of the network."""

    def __init__(self):
        super().__init__(StandardizedConv(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), StandardizedConv(8, 8, 1))


@case(IMAGE)
class SpatialTransformer(nn.Module):
    """The last layer of a localization net starts at zero, its bias at the identity."""

    def __init__(self):
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.theta = nn.Linear(8, 6)
        nn.init.zeros_(self.theta.weight)
        self.theta.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.body = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        grid = F.affine_grid(self.theta(self.locate(x)).view(-1, 2, 3), x.shape, align_corners=False)
        return self.body(F.grid_sample(x, grid, align_corners=False))


@case(TOKENS, info=("ND501",))
class OptionalContext(nn.Module):
    """Cross-attention and its norm do not run without a context."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mlp, self.cross = nn.Linear(16, 16), nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x, context=None):
        if context is not None:
            x = x + self.cross(self.norm2(x), context, context)[0]
        return x + F.gelu(self.mlp(self.norm1(x)))


@case(MAP)
class DomainNorms(nn.Module):
    """One norm for each domain or time step; a call uses one of them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.steps = nn.ModuleDict({name: nn.BatchNorm2d(16) for name in ("photo", "sketch")})

    def forward(self, x, domain=1):
        return self.steps["photo"](F.relu(self.norms[domain](self.conv(x))))


@case(IMAGE, info=("ND501",))
class AuxiliaryHead(nn.Module):
    """A head that is not run at all; a slice of a backbone (perceptual losses)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*conv_bn(3, 8), *conv_bn(8, 8))
        self.aux = conv_bn(8, 4)
        self.use_aux = False

    def forward(self, x):
        for layer in self.body[:3]:
            x = layer(x)
        return self.aux(x) if self.use_aux else x


@case(VECTOR)
class HiddenOnPurpose(nn.Module):
    """A frozen teacher in a list, parameterless modules in a dict, a second name for registered ones."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(16, 16)
        self.teacher = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()).requires_grad_(False)]
        self.acts = {"relu": nn.ReLU(), "none": nn.Identity()}
        self.layers = [self.student]
        self.sizes = [torch.ones(3)]

    def forward(self, x):
        return self.acts["relu"](self.layers[0](x)) - self.teacher[0](x)


@case(VECTOR)
class SelfSupervisedHead(nn.Sequential):
    """SimSiam: the last BatchNorm has no affine part; the last layer has no bias."""

    def __init__(self):
        super().__init__(
            nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(inplace=True),
            nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32, affine=False),
        )  # fmt: skip


@case(TOKENS)
class Mixer(nn.Module):
    """Linear layers over tokens and over channels in turn."""

    def __init__(self):
        super().__init__()
        self.tokens, self.channels = nn.Linear(6, 6), nn.Linear(16, 16)

    def forward(self, x):
        return self.channels(self.tokens(x.transpose(1, 2)).transpose(1, 2))


@case(VECTOR)
class OneLayer(nn.Linear):
    """Logistic regression from zero: convex."""

    def __init__(self):
        super().__init__(16, 10)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


@case(IMAGE)
class PooledBranch(nn.Module):
    """ASPP: a BatchNorm on 1 x 1 maps, which reduces over the batch."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x):
        return F.interpolate(F.relu(self.pool(x)), size=x.shape[-2:])


@case(VECTOR)
class Reparametrized(nn.Sequential):
    """weight_norm starts with constant or equal norms of the rows; these are no weights."""

    def __init__(self):
        super().__init__(
            nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)),
            nn.ReLU(),
            nn.utils.parametrizations.spectral_norm(nn.Linear(16, 8)),
        )


@case(MAP)
class FixedKernel(nn.Module):
    """A blur with a frozen, constant kernel, and a learned sum of branches that starts even."""

    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 9)
        self.mean = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        nn.init.constant_(self.mean.weight, 1 / 144)
        self.mean.requires_grad_(False)
        self.conv = nn.Conv2d(16, 16, 3)
        self.fuse = nn.Linear(3, 1, bias=False)
        nn.init.constant_(self.fuse.weight, 1 / 3)

    def forward(self, x):
        x = torch.stack([self.blur(x), self.mean(x), x], -1)
        return F.relu(self.conv(self.fuse(x).squeeze(-1)))


@case(VECTOR)
class Autoencoder(nn.Module):
    """A VAE: two heads from one hidden layer, a sample, a decoder."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(16, 8), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(8, 4), nn.Linear(8, 4)
        self.decode = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 16), nn.Sigmoid())

    def forward(self, x):
        h = self.encode(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        return self.decode(z), mean, log_variance


@case(IMAGE)
class DecoderWithSkips(nn.Module):
    """A UNet: in-place activations in front of a skip that is concatenated later."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.inner = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1))

    def forward(self, x):
        skip = self.down(x)
        return torch.sigmoid(self.out(torch.cat([skip, self.up(self.inner(skip))], 1)))


@case(torch.zeros(2, 6, 16))
class HeadNorms(nn.Module):
    """Norms of queries and keys, RMSNorm, and a LayerNorm whose parameters are read by a function."""

    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(16, eps=1e-6)
        self.query, self.key = nn.LayerNorm(8), nn.LayerNorm(8)
        self.final = nn.LayerNorm(16)

    def forward(self, x):
        h = self.norm(x).unflatten(-1, (2, 8)).transpose(1, 2)
        y = F.scaled_dot_product_attention(self.query(h), self.key(h), h).transpose(1, 2).flatten(2)
        return F.layer_norm(x + y, (16,), self.final.weight, self.final.bias)
