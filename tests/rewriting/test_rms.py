"""`layer->rms`: exact in networks that normalize first, refused elsewhere."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.layers import RMSNorm

IDS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, d, p=0.0, scale=False):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d, bias=False)
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.drop = nn.Dropout(p)
        self.gamma = nn.Parameter(torch.rand(d) + 0.1) if scale else None

    def forward(self, x):
        y = self.ln1(x)
        x = x + self.drop(self.attn(y, y, y, need_weights=False)[0])
        y = self.down(F.gelu(self.up(self.ln2(x))))
        return x + self.drop(y if self.gamma is None else y * self.gamma)


class Gpt(nn.Module):
    def __init__(self, d=32, p=0.0, scale=False, tied=True):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, d), nn.Parameter(torch.randn(16, d))
        self.blocks = nn.ModuleList(Block(d, p, scale) for _ in range(3))
        self.ln = nn.LayerNorm(d, eps=1e-4)
        self.head = nn.Linear(d, 50, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids):
        x = self.wte(ids) + self.wpe[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


class Vit(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 4, stride=4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, d)), nn.Parameter(torch.randn(1, 17, d))
        self.blocks = nn.Sequential(Block(d), Block(d))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


def worn(model):
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            for value in module.parameters():
                value.data = torch.rand(value.shape, generator=generator) + 0.5
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.normal_(0, 0.5, generator=generator)
    return model


@pytest.mark.parametrize("options", [{}, {"scale": True}, {"tied": False}], ids=str)
def test_a_gpt(options):
    torch.manual_seed(0)
    model = worn(Gpt(**options))
    untouched = copy.deepcopy(model.state_dict())
    result = normdoctor.convert(model, "layer->rms", inputs=IDS)
    assert (result.verdict, result.verified, len(result.replaced), result.refused) == ("exact", True, 7, ())
    assert result.differences["eval"].relative < 2e-6
    assert result.differences["train"].relative < 2e-6  # without dropout
    assert all(torch.equal(model.state_dict()[key], value) for key, value in untouched.items())
    assert result.key_map == {key: key for key in untouched}
    assert type(result.model.blocks[0].ln2) is RMSNorm
    assert not any(type(module) is nn.LayerNorm for module in result.model.modules())
    # Other inputs too.
    other = torch.randint(0, 50, (3, 16))
    torch.testing.assert_close(result.model.eval()(other), model.eval()(other), rtol=1e-4, atol=1e-4)


def test_tied_weights_part_and_go_on_training():
    torch.manual_seed(0)
    model = worn(Gpt())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(IDS).logsumexp(-1).sum().backward()
    optimizer.step()
    moments = optimizer.state[model.wte.weight]["exp_avg"].clone()
    result = normdoctor.convert(model, "layer->rms", inputs=IDS, inplace=True, optimizer=optimizer)
    assert model.head.weight is not model.wte.weight
    assert any("`head.weight` was the same parameter as `wte.weight`" in note for note in result.notes)
    assert torch.equal(optimizer.state[model.head.weight]["exp_avg"], moments)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    before = model.head.weight.detach().clone()
    model(IDS).logsumexp(-1).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.head.weight)


def test_a_vision_transformer():
    torch.manual_seed(0)
    result = normdoctor.convert(worn(Vit()), "layer->rms", inputs=torch.randn(2, 3, 16, 16))
    assert (result.verdict, len(result.replaced), result.refused) == ("exact", 5, ())
    assert result.differences["eval"].relative < 1e-5


def test_dropout_on_the_stream_is_exact_in_eval_mode_alone():
    torch.manual_seed(0)
    result = normdoctor.convert(worn(Gpt(p=0.3)), "layer->rms", inputs=IDS)
    assert (result.verdict, result.exact_in) == ("exact", ("eval",))
    assert result.differences["eval"].relative < 1e-5 < result.differences["train"].relative


class Pooled(Vit):
    """Its head reads the stream, not a LayerNorm."""

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(x).mean(1))


class Shared(Gpt):
    """Embeddings that are used by a function too."""

    def forward(self, ids):
        return super().forward(ids) + F.linear(self.wpe[: ids.shape[1]], self.wte.weight)


REFUSED = {
    "post-norm": (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 1, enable_nested_tensor=False
        ),
        torch.randn(2, 5, 32),
        ["what it normalizes comes from outside the model", "(layer_norm) writes to what it normalizes"],
    ),
    "pooled": (
        Pooled(),
        torch.randn(2, 3, 16, 16),
        ["reads what it normalizes, and would see the mean gone"],
    ),
    "used by a function": (Shared(), IDS, ["uses `w"]),
    "behind an activation": (
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.LayerNorm(8)),
        torch.randn(2, 8),
        ["`1` (relu) writes to what"],
    ),
    "two dimensions": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 5))),
        torch.randn(2, 3, 4, 5),
        ["several"],
    ),
    "channels of a convolution": (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(5)),
        torch.randn(2, 3, 4, 5),
        ["lie along another axis"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    model, inputs, reasons = REFUSED[name]
    torch.manual_seed(0)
    before = copy.deepcopy(model.state_dict())
    result = normdoctor.convert(model, "layer->rms", inputs=inputs)
    told = [left.reason for left in result.refused]
    assert all(any(reason in one for one in told) for reason in reasons), told
    if name != "pooled":
        assert not result.replaced
    if not result.replaced:
        assert all(torch.equal(result.model.state_dict()[key], value) for key, value in before.items())


def test_a_linear_layer_in_front_is_enough():
    model = worn(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU()))
    result = normdoctor.convert(model, "layer->rms", inputs=torch.randn(4, 6))
    assert (result.verdict, result.verified, len(result.replaced)) == ("exact", True, 1)


def test_hooks_on_writers_are_readers():
    model = worn(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)))
    model[0].register_forward_hook(lambda *_: None)
    assert (
        "hooks of `0`" in normdoctor.convert(model, "layer->rms", inputs=torch.randn(4, 6)).refused[0].reason
    )
