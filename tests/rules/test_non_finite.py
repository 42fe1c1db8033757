"""ND608: the operation that makes NaN or infinity is named, and masks by design are not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor


def found(model, data, inputs=None):
    inputs = data[0] if inputs is None else inputs
    report = normdoctor.check(model, inputs, data=data, select="ND608")
    assert [result.outcome for result in report.results] != ["skipped"], report.results
    return {(finding.evidence["operation"], finding.modules[0]) for finding in report.findings}


class Squares(nn.Module):
    """RMSNorm by hand, in the format of its input."""

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class SquaresFloat(Squares):
    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


class Products(nn.Module):
    def forward(self, x):
        return x / ((x * x).mean(-1, keepdim=True) + 1e-6).sqrt()


class Unit(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=-1)


class Plain(nn.Module):
    """Divides by the spread, without eps."""

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


class Entropy(nn.Module):
    def forward(self, x):
        p = F.relu(x)
        return p * torch.log(p)


class Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(x)


def mlp(middle: nn.Module, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), middle, nn.Linear(16, 4)).to(dtype)


class Residual(nn.Module):
    def __init__(self, middle: nn.Module, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(16, 16)
        self.blocks = nn.ModuleList([nn.ModuleDict({"norm": middle, "fc": nn.Linear(16, 16)})])
        self.head = nn.Linear(16, 4)
        self.to(dtype)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block["fc"](block["norm"](x))
        return {"logits": self.head(x)}


class Convolutional(nn.Module):
    def __init__(self, middle: nn.Module, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(16, 16, 1)
        self.middle = middle
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.to(dtype)

    def forward(self, x):
        x = self.conv(x.unsqueeze(-1).expand(-1, -1, 3)).transpose(1, 2)
        x = self.middle(x).transpose(1, 2)
        return self.pool(x).flatten(1), x


class Sequence(nn.Module):
    def __init__(self, middle: nn.Module, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.middle = middle
        self.fc = nn.Linear(16, 16)
        self.to(dtype)

    def forward(self, x):
        parts = [self.middle(part) for part in self.fc(x).chunk(2, 0)]
        return torch.cat(parts, 0)


NETS = (mlp, Residual, Convolutional, Sequence)
HALF = [(500 * torch.randn(8, 16, generator=torch.Generator().manual_seed(1))).half() for _ in range(2)]


def zeros(dtype):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    x[2:6] = 0
    return [x.to(dtype)] * 2


def no_bias(model):
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return model


@pytest.mark.parametrize("net", NETS)
def test_squares_in_half_precision(net):
    model = net(Squares(), torch.float16)
    assert {kind for kind, _ in found(model, HALF)} == {"pow"}
    assert {kind for kind, _ in found(net(Products(), torch.float16), HALF)} == {"mul"}
    assert found(net(SquaresFloat(), torch.float16), HALF) == set()
    assert found(net(nn.RMSNorm(16), torch.float16), HALF) == set()
    assert found(net(Squares(), torch.float32), [x.float() for x in HALF]) == set()


@pytest.mark.parametrize("net", NETS)
def test_normalize_of_zero_rows_in_half_precision(net):
    made = found(no_bias(net(Unit(), torch.float16)), zeros(torch.float16))
    assert {kind for kind, _ in made} == {"normalize"}
    assert found(no_bias(net(Unit())), zeros(torch.float32)) == set()


@pytest.mark.parametrize("net", NETS)
def test_division_by_a_spread_of_zero(net):
    assert {kind for kind, _ in found(no_bias(net(Plain())), zeros(torch.float32))} == {"div"}
    assert found(no_bias(net(nn.LayerNorm(16))), zeros(torch.float32)) == set()


@pytest.mark.parametrize("net", NETS)
def test_the_root_of_a_negative_number_and_the_logarithm_of_zero(net):
    data = [torch.randn(8, 16, generator=torch.Generator().manual_seed(2))]
    assert {kind for kind, _ in found(net(Root()), data)} == {"sqrt"}
    assert {kind for kind, _ in found(net(Entropy()), data)} == {"log"}


def test_it_is_placed_and_told():
    model = nn.Sequential(nn.Linear(16, 16), Squares()).half()
    report = normdoctor.check(model, HALF[0], data=HALF, select="ND608")
    (finding,) = report.findings
    assert finding.modules == ("1",)
    assert finding.severity == "error"
    assert finding.location is not None
    assert "which later steps hide" in finding.message
    assert finding.evidence["dtype"] == "float16"


class Attention(nn.Module):
    """Masks with minus infinity, in every way."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(-2, -1) / 4
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(1)
        if self.how == "masked_fill":
            scores = scores.masked_fill(mask, float("-inf"))
        elif self.how == "where":
            scores = torch.where(mask, torch.tensor(-math.inf), scores)
        elif self.how == "full":
            scores = scores + torch.full((n, n), float("-inf")).triu(1)
        elif self.how == "log":
            scores = scores + torch.log((~mask).float())
        elif self.how == "setitem":
            scores[:, mask] = -math.inf
        elif self.how == "min":
            scores = scores + mask * torch.finfo(scores.dtype).min
        elif self.how == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "whole row":
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool), -math.inf)
        elif self.how == "cleaned":
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool), -math.inf)
            return torch.nan_to_num(scores.softmax(-1)) @ v
        return scores.softmax(-1) @ v


@pytest.mark.parametrize("how", "masked_fill where full log setitem min sdpa cleaned".split())
def test_masks_are_silent(how):
    assert found(Attention(how), [torch.randn(2, 5, 16)]) == set()


def test_a_row_that_is_masked_altogether():
    assert found(Attention("whole row"), [torch.randn(2, 5, 16)]) == {("softmax", "")}


class Sigmoid(nn.Module):
    def forward(self, x):
        return 1 / (1 + torch.exp(-1000 * x))


class Where(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, torch.log(x), torch.zeros_like(x))


class Softplus(nn.Module):
    def forward(self, x):
        return torch.log(1 + torch.exp(1000 * x))


def test_infinities_that_come_out_right_are_silent():
    data = [torch.randn(8, 16)]
    assert found(Sigmoid(), data) == set()
    assert found(Where(), data) == set()
    assert found(Softplus(), data) == {("exp", "")}


def test_bad_data_and_bad_weights_are_not_the_model_s_operations():
    model = mlp(nn.ReLU())
    assert found(model, [torch.full((8, 16), math.nan), torch.randn(8, 16)], torch.zeros(8, 16)) == set()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    assert found(model, [torch.randn(8, 16)]) == set()


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x):
        x = self.fc(x)
        x.div_(x.detach() * 0)
        x.relu_()
        return x


def test_operations_in_place():
    assert found(InPlace(), [torch.randn(8, 16)]) == {("div", "")}


def test_in_a_watch_the_first_site():
    model = mlp(Plain())
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        model(torch.zeros(8, 16) / 0)
        w.step()
    (finding,) = [one for one in w.report().findings if one.code == "ND608"]
    assert finding.evidence["operation"] in ("input", "linear")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        y = F.hardswish(self.norm(self.conv(x)))
        return x + y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))


def healthy():
    image = torch.randn(4, 3, 16, 16)
    blocks = [nn.Conv2d(3, 8, 3), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    yield "convolutions", nn.Sequential(*blocks), image
    yield "lstm", nn.LSTM(8, 16, 2), torch.randn(5, 4, 8)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    yield "encoder", nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(3, 5, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    yield "causal", Causal(layer, causal), torch.randn(3, 5, 16)


class Causal(nn.Module):
    def __init__(self, layer, mask):
        super().__init__()
        self.layer, self.mask = layer, mask

    def forward(self, x):
        return self.layer(x, src_mask=self.mask, is_causal=True)


def test_healthy_models_are_silent():
    for name, model, x in healthy():
        for training in (True, False):
            assert found(model.train(training), [x, x]) == set(), name


def test_batches_that_are_not_finite_themselves():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    batches = [torch.randn(4, 8) for _ in range(3)]
    batches[1][0, 0] = torch.inf
    batches[2][:] = torch.nan
    report = normdoctor.check(model, batches[0], data=batches, select="ND608")
    assert not report.findings
    assert "2 of the batches hold NaN or infinity themselves" in report.targets[0].notes
