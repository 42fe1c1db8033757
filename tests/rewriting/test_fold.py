"""`batch->none`: what is folded, and what is refused, in models as people write them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor import layers

from .test_specs import Act, worn

X = torch.randn(4, 6, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
XL = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X3 = torch.randn(2, 6, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FLAT = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Lambda(nn.Module):
    """A forward as a function of its layers."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x):
        return self.run(self, *x)


class SamePad(nn.Conv2d):
    """As timm's Conv2dSame: pads by itself, then calls the function."""

    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardized(nn.Conv2d):
    """As timm's StdConv2d."""

    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, w, self.bias)


def both(model, y):
    return model.a(y) + model.b(y)


def after(model, y):
    return model.norm(y) + y


def seq(*parts):
    return nn.Sequential(*parts)


def bn(n=8, **options):
    return nn.BatchNorm2d(n, **options)


FOLDED = {
    "conv": (lambda: seq(nn.Conv2d(6, 8, 3), bn()), X),
    "no bias": (lambda: seq(nn.Conv2d(6, 8, 3, bias=False), bn()), X),
    "no affine": (lambda: seq(nn.Conv2d(6, 8, 3, bias=False), bn(affine=False)), X),
    "norm without bias": (lambda: seq(nn.Conv2d(6, 8, 3, bias=False), bn(bias=False)), X),
    "momentum None": (lambda: seq(nn.Conv2d(6, 8, 3), bn(momentum=None)), X),
    "groups": (lambda: seq(nn.Conv2d(6, 9, 3, groups=3), bn(9)), X),
    "depthwise": (lambda: seq(nn.Conv2d(6, 12, 3, groups=6, padding=1), bn(12)), X),
    "transposed": (lambda: seq(nn.ConvTranspose2d(6, 8, 3, stride=2), bn()), X),
    "transposed groups": (lambda: seq(nn.ConvTranspose2d(6, 9, 3, groups=3), bn(9)), X),
    "conv1d": (lambda: seq(nn.Conv1d(6, 8, 3), nn.BatchNorm1d(8)), XL),
    "conv3d": (lambda: seq(nn.Conv3d(6, 8, 3), nn.BatchNorm3d(8)), X3),
    "transposed 1d": (lambda: seq(nn.ConvTranspose1d(6, 8, 3), nn.BatchNorm1d(8)), XL),
    "linear": (lambda: seq(nn.Linear(6, 8), nn.BatchNorm1d(8)), FLAT),
    "linear of three dimensions": (
        lambda: Lambda(
            lambda s, x: s.norm(s.fc(x.transpose(1, 2)).transpose(1, 2)),
            fc=nn.Linear(6, 8),
            norm=nn.BatchNorm1d(8),
        ),
        XL,
    ),
    "flattened tokens": (
        lambda: Lambda(
            lambda s, x: s.norm(s.fc(x.transpose(1, 2)).flatten(0, 1)),
            fc=nn.Linear(6, 8),
            norm=nn.BatchNorm1d(8),
        ),
        XL,
    ),
    "shuffled": (lambda: seq(nn.Conv2d(6, 8, 1), nn.ChannelShuffle(2), bn()), X),
    "pixels": (lambda: seq(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2), bn(2)), X),
    "behind dropout": (lambda: seq(nn.Conv2d(6, 8, 1), nn.Dropout(0.5), nn.Identity(), bn()), X),
    "functional conv": (lambda: seq(SamePad(6, 8, 3, bias=False), bn()), X),
    "with an activation": (lambda: seq(nn.Conv2d(6, 8, 3), Act(8)), X),
    "own with an activation": (
        lambda: seq(nn.Conv2d(6, 8, 3), layers.BatchNorm2d(8, activation="gelu_tanh")),
        X,
    ),
    "two norms": (lambda: seq(nn.Conv2d(6, 8, 3), bn(), bn()), X),
    "instance with statistics": (
        lambda: seq(nn.Conv2d(6, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True)),
        X,
    ),
    "sync": (lambda: seq(nn.Conv2d(6, 8, 3), nn.SyncBatchNorm(8)), X),
    "norm in front": (lambda: seq(bn(6), nn.Conv2d(6, 8, 3)), X),
    "norm in front, groups": (lambda: seq(bn(6), nn.Conv2d(6, 9, 3, groups=3, bias=False)), X),
    "norm in front, circular": (
        lambda: seq(bn(6), nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular")),
        X,
    ),
    "norm in front of a head": (lambda: seq(nn.BatchNorm1d(6), nn.Dropout(0.1), nn.Linear(6, 3)), FLAT),
    "norm in front, flattened": (lambda: seq(bn(6), nn.Flatten(), nn.Linear(6 * 81, 3)), X),
    "norm in front, transposed": (lambda: seq(bn(6), nn.ConvTranspose2d(6, 9, 1, groups=3)), X),
    "norm in front of two": (
        lambda: Lambda(
            lambda s, x: both(s, s.norm(x.relu())), norm=bn(6), a=nn.Conv2d(6, 4, 1), b=nn.Conv2d(6, 4, 1)
        ),
        X,
    ),
    "one norm of two convolutions": (
        lambda: Lambda(
            lambda s, x: s.norm(s.a(x)) * s.norm(s.b(x)),
            norm=bn(),
            a=nn.Conv2d(6, 8, 3),
            b=nn.Conv2d(6, 8, 3),
        ),
        X,
    ),
    "a pair that is called twice": (
        lambda: Lambda(lambda s, x: s.norm(s.a(x)) * s.norm(s.a(x + 1)), norm=bn(), a=nn.Conv2d(6, 8, 3)),
        X,
    ),
    "between two": (lambda: seq(nn.Conv2d(6, 8, 3), bn(), nn.Conv2d(8, 8, 3), bn(), nn.ReLU()), X),
    "in a ModuleDict": (
        lambda: Lambda(
            lambda s, x: s.parts["bn"](s.parts["conv"](x)),
            parts=nn.ModuleDict({"conv": nn.Conv2d(6, 8, 3), "bn": bn()}),
        ),
        X,
    ),
    "a slice": (
        lambda: Lambda(
            lambda s, x: s.parts[1:3](s.parts[0](x)), parts=seq(nn.Conv2d(6, 8, 3), bn(), nn.ReLU())
        ),
        X,
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    build, x = FOLDED[name]
    torch.manual_seed(0)
    model = worn(build())
    keys, train = set(model.state_dict()), model.training
    before = copy.deepcopy(model).eval()(x)
    result = normdoctor.convert(model, "batch->none", inputs=x)
    assert (result.verdict, result.verified, result.refused) == ("exact", True, ())
    torch.testing.assert_close(result.model.eval()(x), before, rtol=1e-9, atol=1e-9)
    assert set(result.key_map) == keys
    assert {new for new in result.key_map.values() if new} <= set(result.model.state_dict())
    assert not any("running" in key for key in result.model.state_dict())
    assert train
    assert model.training


def two(run):
    return lambda: Lambda(run, conv=nn.Conv2d(6, 8, 3), norm=bn(), other=bn())


REFUSED = {
    "second reader": (two(lambda s, x: after(s, s.conv(x))), "read by `add in the model` too"),
    "convolution of two norms": (
        two(lambda s, x: s.norm(s.conv(x)) + s.other(s.conv(x))),
        "`conv` is called elsewhere too",
    ),
    "behind a relu": (
        lambda: seq(nn.Conv2d(6, 8, 3), nn.ReLU(), bn()),
        "`1` (relu), which is no convolution",
    ),
    "at the border": (lambda: seq(nn.ReLU(), bn(6), nn.Conv2d(6, 8, 3, padding=1)), "`2` pads with zeros"),
    "padding same": (
        lambda: seq(nn.ReLU(), bn(6), nn.Conv2d(6, 8, 3, padding="same")),
        "`2` pads with zeros",
    ),
    "transposed behind": (lambda: seq(nn.ReLU(), bn(6), nn.ConvTranspose2d(6, 8, 3)), "`2` is transposed"),
    "the input": (lambda: seq(bn(6), nn.ReLU()), "comes from outside the model"),
    "batch statistics": (
        lambda: seq(nn.Conv2d(6, 8, 3), bn(track_running_stats=False)),
        "no running statistics",
    ),
    "weight_norm": (
        lambda: seq(nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 8, 3)), bn()),
        "the weight of `0` is computed",
    ),
    "spectral_norm": (
        lambda: seq(nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 8, 3)), bn()),
        "the weight of `0` is computed",
    ),
    "old spectral_norm": (
        lambda: seq(nn.utils.spectral_norm(nn.Conv2d(6, 8, 3)), bn()),
        "the weight of `0` is computed",
    ),
    "weight standardization": (lambda: seq(Standardized(6, 8, 3), bn()), "computes its weight from others"),
    "never called": (
        lambda: Lambda(lambda s, x: s.conv(x), conv=nn.Conv2d(6, 8, 3), norm=bn()),
        "is not called",
    ),
    "cat": (
        lambda: Lambda(
            lambda s, x: s.norm(torch.cat([s.a(x), s.b(x)], 1)),
            norm=bn(),
            a=nn.Conv2d(6, 4, 3),
            b=nn.Conv2d(6, 4, 3),
        ),
        "`cat in the model`, which is no convolution",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    build, reason = REFUSED[name]
    model = worn(build())
    before = copy.deepcopy(model.state_dict())
    result = normdoctor.convert(model, "batch->none", inputs=X)
    assert not result.replaced
    assert any(reason in left.reason for left in result.refused), result.refused
    assert result.differences["eval"].largest == 0
    after = result.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_linear_of_three_dimensions_is_not_mixed_up():
    """L == C: shapes fit, and the norm's channels are not those of the layer in front."""
    model = worn(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)))
    result = normdoctor.convert(model, "batch->none", inputs=torch.randn(4, 8, 6, dtype=torch.float64))
    assert "its channels are not the output channels of the layer in front" in result.refused[0].reason


def test_in_a_plain_list_eval_does_not_reach():
    parts = [nn.Conv2d(6, 8, 3).double(), bn().double()]
    model = Lambda(lambda s, x: s.parts[1](s.parts[0](x)), parts=parts)
    assert "eval() does not reach it" in normdoctor.convert(model, "batch->none", inputs=X).refused[0].reason
    assert normdoctor.convert(model, "batch->sync", inputs=X).verified
    result = normdoctor.convert(model, "batch->group", inputs=X)
    assert isinstance(result.model.parts[1], layers.GroupNorm)
    parts[1].eval()
    assert normdoctor.convert(model, "batch->none", inputs=X).verified


def test_tied_weights():
    model = nn.Sequential(nn.Conv2d(6, 6, 1), bn(6), nn.ReLU(), nn.Conv2d(6, 6, 1), bn(6))
    model[3].weight = model[0].weight
    result = normdoctor.convert(worn(model), "batch->none", inputs=X)
    assert [left.reason.split(";")[0] for left in result.refused] == [
        "in front, `0.weight` is shared with `3.weight`", "in front, `3.weight` is shared with `0.weight`",
    ]  # fmt: skip


def test_hooks_are_readers():
    seen = []
    for place, kind in ((0, "forward"), (1, "forward_pre"), (1, "full_backward")):
        model = worn(nn.Sequential(nn.Conv2d(6, 8, 3), bn()))
        getattr(model[place], f"register_{kind}_hook")(lambda *_: seen.append(1))
        result = normdoctor.convert(model, "batch->none", inputs=X)
        assert len(result.refused) == 1
        assert "hooks of" in result.refused[0].reason
    model[1]._backward_hooks.clear()
    model[1].register_forward_hook(lambda *_: seen.append(2))
    result = normdoctor.convert(model, "batch->none", inputs=X)
    assert not result.refused
    seen.clear()
    result.model(X)
    assert seen == [2]


def test_parameters_stay_and_the_bias_is_handed_over():
    model = worn(nn.Sequential(nn.Conv2d(6, 8, 3, bias=False), bn(), nn.Flatten(), nn.Linear(392, 2)))
    weight, shift = model[0].weight, model[1].bias
    weight.requires_grad_(False)
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    model(X).sum().backward()
    optimizer.step()
    state = optimizer.state[shift]
    result = normdoctor.convert(model, "batch->none", inputs=X, inplace=True, optimizer=optimizer)
    assert model[0].weight is weight
    assert not weight.requires_grad
    assert model[0].bias is shift
    assert optimizer.state[shift] is state
    assert result.key_map["1.bias"] == "0.bias"
    assert result.parameter_map == {
        "0.weight": "0.weight", "1.weight": None, "1.bias": "0.bias", "3.weight": "3.weight",
        "3.bias": "3.bias",
    }  # fmt: skip
    assert set(result.changed) == {"0.weight", "0.bias"}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types_and_memory_format(dtype):
    model = (
        worn(nn.Sequential(nn.Conv2d(6, 8, 3), bn(), nn.ReLU()))
        .to(dtype)
        .to(memory_format=torch.channels_last)
    )
    x = X.to(dtype).to(memory_format=torch.channels_last)
    result = normdoctor.convert(model, "batch->none", inputs=x)
    assert (result.verdict, result.verified, result.refused) == ("exact", True, ())
    assert all(p.dtype == dtype for p in result.model.parameters())
    assert result.model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_eval_and_train_mixed():
    model = worn(nn.Sequential(nn.Conv2d(6, 8, 3), bn(), nn.Conv2d(8, 8, 3), bn()))
    model[1].eval()
    result = normdoctor.convert(model, "batch->none", inputs=X)
    assert [part.training for part in result.model] == [True, False, True, True]


def test_without_inputs_they_are_inferred():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), bn(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    result = normdoctor.convert(model, "batch->none")
    assert (result.verified, len(result.replaced)) == (True, 1)
    assert any("inputs inferred" in note for note in result.notes)
    blind = normdoctor.convert(
        Lambda(lambda s, x, y: s.norm(s.conv(x[0]) + y["a"]), conv=nn.Conv2d(3, 8, 3), norm=bn()),
        "batch->none",
    )
    assert "the forward is not known" in blind.refused[0].reason


def test_on_meta():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(6, 8, 3), bn())
    result = normdoctor.convert(model, "batch->none", inputs=X.float())
    assert "meta device" in result.refused[0].reason
    result = normdoctor.convert(model, "batch->sync", inputs=X.float())
    assert (result.verdict, result.verified) == ("exact", False)
    assert "not verified: the model is on the meta device" in result.notes
