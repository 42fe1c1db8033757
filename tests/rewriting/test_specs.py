"""The conversions one by one: what they build, what they keep, what leads back, what is refused."""

import copy

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor import layers
from normdoctor.errors import RewriteError
from normdoctor.rewriting.conversions import all_conversions, find_conversion

X1 = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
XL = torch.randn(6, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X2 = torch.randn(4, 8, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X3 = torch.randn(4, 8, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def worn(model: nn.Module) -> nn.Module:
    """In float64, with values as after some training."""
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    for module in model.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name, None)
            if isinstance(value, torch.Tensor) and value.dim() == 1:
                value.data = torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
    return model


class Act(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-3)
        self.drop = nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class ImageNorm(nn.LayerNorm):
    """As LayerNorm2d of timm and torchvision."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


TORCH = {
    "BatchNorm1d": (nn.BatchNorm1d(8, eps=1e-3, momentum=0.3), X1),
    "BatchNorm1d, length": (nn.BatchNorm1d(8, momentum=None), XL),
    "BatchNorm2d": (nn.BatchNorm2d(8), X2),
    "BatchNorm2d, plain": (nn.BatchNorm2d(8, affine=False), X2),
    "BatchNorm2d, no bias": (nn.BatchNorm2d(8, bias=False), X2),
    "BatchNorm2d, batch": (nn.BatchNorm2d(8, track_running_stats=False), X2),
    "BatchNorm3d": (nn.BatchNorm3d(8), X3),
    "SyncBatchNorm": (nn.SyncBatchNorm(8), X2),
    "InstanceNorm2d": (nn.InstanceNorm2d(8, affine=True), X2),
    "InstanceNorm2d, running": (nn.InstanceNorm2d(8, track_running_stats=True), X2),
    "InstanceNorm3d": (nn.InstanceNorm3d(8), X3),
    "LayerNorm": (nn.LayerNorm(5, eps=1e-3), X2),
    "LayerNorm, two": (nn.LayerNorm((6, 5)), X2),
    "LayerNorm, no bias": (nn.LayerNorm(5, bias=False), X2),
    "GroupNorm": (nn.GroupNorm(4, 8, eps=1e-3), X2),
    "GroupNorm, plain": (nn.GroupNorm(4, 8, affine=False), X2),
    "RMSNorm": (nn.RMSNorm(5), X2),
    "LocalResponseNorm": (nn.LocalResponseNorm(3, k=2.0), X2),
    "activation": (Act(8), X2),
    "image": (ImageNorm(8), X2),
}


def step(model, x):
    """Outputs and gradients of one training step, then outputs in eval mode."""
    model = copy.deepcopy(model).train()
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    (y * weights).sum().backward()
    return [y, x.grad, *(p.grad for p in model.parameters()), *model.buffers(), model.eval()(x)]


@pytest.mark.parametrize("name", TORCH)
def test_torch_to_own_and_back(name):
    layer, x = TORCH[name]
    model = worn(nn.Sequential(copy.deepcopy(layer)))
    own = normdoctor.convert(model, "torch->own", inputs=x)
    assert (own.verdict, own.verified, own.exact_in) == ("exact", True, ("eval", "train"))
    assert type(own.model[0]).__module__.startswith("normdoctor.")
    assert own.key_map == {key: key for key in model.state_dict()}
    for old, new in zip(step(model, x), step(own.model, x), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-9, atol=1e-9)
    back = normdoctor.convert(own.model, "own->torch", inputs=x).model
    assert type(back[0]) is type(layer)
    assert str(back) == str(model)
    assert list(vars(back[0])) == list(vars(model[0])) or set(vars(back[0])) == set(vars(model[0]))
    for old, new in zip(step(model, x), step(back, x), strict=True):
        assert torch.equal(old, new)


def test_own_layers_that_torch_does_not_have():
    model = nn.Sequential(
        layers.GroupNorm(2, 8, activation="relu"), layers.LayerNorm2d(8), layers.GhostBatchNorm(8)
    )
    result = normdoctor.convert(model, "own->torch", inputs=X2.float())
    assert [left.reason for left in result.refused] == [
        "it ends with relu, which torch's layer does not",
        "torch has no layer that is a LayerNorm2d",
        "torch has no layer that is a GhostBatchNorm",
    ]
    assert result.verdict == "refused"


ROUND_TRIPS = {
    "batch->sync": ("sync->batch", layers.SyncBatchNorm),
    "batch->frozen": ("frozen->batch", layers.FrozenBatchNorm),
    "batch->renorm": ("renorm->batch", layers.BatchRenorm),
    "batch->ghost": ("ghost->batch", layers.GhostBatchNorm),
}


def convnet(norm=None):
    torch.manual_seed(0)
    first = norm if norm is not None else nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
    return worn(
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), first, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    )


@pytest.mark.parametrize("norm", [None, "act", "plain"])
@pytest.mark.parametrize("spec", ROUND_TRIPS)
def test_there_and_back(spec, norm):
    back, kind = ROUND_TRIPS[spec]
    model = convnet({None: None, "act": Act(8), "plain": nn.BatchNorm2d(8, affine=False)}[norm])
    parameters = dict(model.named_parameters())
    model[4].num_batches_tracked += 7
    before, printed, attributes = copy.deepcopy(model.state_dict()), str(model), [set(vars(m)) for m in model]
    result = normdoctor.convert(model, spec, inputs=X2, inplace=True)
    assert (result.verdict, result.verified, len(result.replaced)) == ("exact", True, 2)
    assert result.differences["eval"].relative < 1e-12
    assert isinstance(model[1], kind)
    assert isinstance(model[4], kind)
    result = normdoctor.convert(model, back, inputs=X2, inplace=True)
    assert (result.verdict, result.verified, len(result.replaced)) == ("exact", True, 2)
    assert (str(model), [set(vars(m)) for m in model]) == (printed, attributes)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(value is parameters[name] for name, value in model.named_parameters())


def test_frozen_layers_learn_nothing_and_the_optimizer_lets_go():
    model = convnet()
    optimizer = torch.optim.Adam(model.parameters())
    model(X2).sum().backward()
    optimizer.step()
    normdoctor.convert(model, "batch->frozen", inputs=X2, inplace=True, optimizer=optimizer)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert held == [id(p) for p in model.parameters()]
    assert {id(p) for p in optimizer.state} == set(held)
    frozen = {k: v.clone() for k, v in model[1].state_dict().items()}
    model.train()(X2).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(v, frozen[k]) for k, v in model[1].state_dict().items())
    result = normdoctor.convert(model, "frozen->batch", inputs=X2, inplace=True, optimizer=optimizer)
    assert "new in the optimizer: 1.weight, 1.bias, 4.weight, 4.bias" in result.notes
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


def test_frozen_values_that_were_loaded_come_back():
    model = convnet()
    frozen = normdoctor.convert(model, "batch->frozen", inputs=X2).model
    other = {k: v + 1 if v.is_floating_point() else v for k, v in frozen.state_dict().items()}
    frozen.load_state_dict(other)
    frozen = frozen.float()
    back = normdoctor.convert(frozen, "frozen->batch", inputs=X2.float()).model
    assert isinstance(back[1].weight, nn.Parameter)
    torch.testing.assert_close(back[1].weight.double(), other["1.weight"])
    torch.testing.assert_close(back[1].running_var.double(), other["1.running_var"])


class TheirFrozen(nn.Module):
    """As torchvision's."""

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 2.0), ("bias", 1.0), ("running_mean", 0.5), ("running_var", 3.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x):
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


TheirFrozen.__name__ = "FrozenBatchNorm2d"


def test_frozen_layers_of_others():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), TheirFrozen(8)).double()
    back = normdoctor.convert(model, "frozen->batch", inputs=X2)
    assert type(back.model[1]) is nn.BatchNorm2d
    assert back.model[1].weight.requires_grad
    assert int(back.model[1].num_batches_tracked) == 0
    none = normdoctor.convert(model, "batch->none", inputs=X2)
    assert type(none.model[1]) is nn.Identity
    own = normdoctor.convert(model, "torch->own", inputs=X2)
    assert type(own.model[1]) is layers.FrozenBatchNorm


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.InstanceNorm1d(8, affine=True), XL),
        (nn.InstanceNorm2d(8, eps=1e-3), X2),
        (nn.InstanceNorm3d(8, affine=True), X3),
        (layers.InstanceNorm2d(8, affine=True, activation="silu"), X2),
    ],
    ids=str,
)
def test_instance_and_group(layer, x):
    model = worn(nn.Sequential(copy.deepcopy(layer)))
    result = normdoctor.convert(model, "instance->group", inputs=x)
    assert (result.verdict, result.verified) == ("exact", True)
    assert (type(result.model[0]), result.model[0].num_groups) == (layers.GroupNorm, 8)
    for old, new in zip(step(model, x), step(result.model, x), strict=True):
        torch.testing.assert_close(old, new)
    back = normdoctor.convert(result.model, "group->instance", inputs=x)
    assert str(back.model) == str(model)


def test_group_to_instance_by_shape():
    result = normdoctor.convert(nn.Sequential(nn.GroupNorm(8, 8)), "group->instance", inputs=X2.float())
    assert type(result.model[0]) is layers.InstanceNorm2d
    refused = normdoctor.convert(nn.Sequential(nn.GroupNorm(4, 8)), "group->instance", inputs=X2.float())
    assert refused.refused[0].reason == "its 4 groups hold 2 channels each"


def test_instance_norms_that_are_no_group_norms():
    running = nn.Sequential(nn.InstanceNorm2d(8, track_running_stats=True))
    assert "running statistics" in normdoctor.convert(running, "instance->group").refused[0].reason
    alone = normdoctor.convert(
        nn.Sequential(nn.InstanceNorm2d(8)), "instance->group", inputs=(X2[0].float(),)
    )
    assert "without a batch" in alone.refused[0].reason


@pytest.mark.parametrize("spec", ["batch->group", "batch->layer", "batch->instance"])
def test_norms_of_single_samples_do_not_look_at_the_batch(spec):
    model = convnet(Act(8)).eval()
    result = normdoctor.convert(model, spec, inputs=X2)
    assert (result.verdict, len(result.replaced)) == ("approximate", 2)
    both, one = result.model(X2), result.model(X2[:1])
    torch.testing.assert_close(both[:1], one)
    assert all(p.requires_grad for p in result.model.parameters())
    result.model.train()(X2).square().sum().backward()
    assert all(p.grad is not None for p in result.model.parameters())
    assert result.layers.keys() == {"1", "4"}


def test_preserving_is_better_than_copying():
    """After the statistics went into the convolution, few groups hardly change what a net computes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.BatchNorm2d(32),
    )
    x = torch.randn(32, 3, 16, 16)
    for _ in range(100):
        model.train()(x)
    model.eval()
    found = {
        count: normdoctor.convert(model, "batch->group", inputs=x, num_groups=count)
        .differences["eval"]
        .relative
        for count in (1, 4, 32)
    }
    assert found[1] < 0.1
    assert found[1] < found[4] < found[32]


def test_statistics_stay_where_they_cannot_be_folded():
    """A BatchNorm behind an activation: the new layer takes the statistics off its input by itself."""
    model = worn(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)))
    folded = worn(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)))
    result = normdoctor.convert(model, "batch->group", inputs=X2, num_groups=2)
    assert type(result.model[2]).__name__ == "StandardizedGroupNorm"
    assert result.key_map["2.running_mean"] == "2.running_mean"
    assert result.key_map["2.num_batches_tracked"] is None
    assert "0 folded into the layer in front, 1 kept by the new layer" in result.notes[0]
    # Both ways compute the same.
    other = copy.deepcopy(folded)
    other[0].register_forward_hook(lambda *_: None)  # nobody may fold into it now
    a = normdoctor.convert(folded, "batch->group", inputs=X2, num_groups=2)
    b = normdoctor.convert(other, "batch->group", inputs=X2, num_groups=2)
    assert type(a.model[1]) is layers.GroupNorm
    assert type(b.model[1]).__name__ == "StandardizedGroupNorm"
    torch.testing.assert_close(a.model(X2), b.model(X2))


@pytest.mark.parametrize(
    ("spec", "model", "x", "reason"),
    [
        ("batch->layer", nn.BatchNorm2d(1), torch.randn(2, 1, 4, 4), "single value"),
        ("batch->instance", nn.BatchNorm1d(8), X1.float(), "single value"),
        ("batch->instance", nn.BatchNorm2d(8), torch.randn(4, 8, 1, 1), "single value"),
        ("batch->frozen", nn.BatchNorm2d(8, track_running_stats=False), X2.float(), "no running statistics"),
        ("batch->renorm", nn.BatchNorm2d(8, track_running_stats=False), X2.float(), "no running statistics"),
        ("batch->none", nn.BatchNorm2d(8, track_running_stats=False), X2.float(), "no running statistics"),
        ("batch->group", layers.MaskedBatchNorm(8), X2.float(), None),
    ],
)
def test_refused(spec, model, x, reason):
    result = normdoctor.convert(nn.Sequential(model), spec, inputs=x)
    assert not result.replaced
    assert [reason in left.reason for left in result.refused] == ([] if reason is None else [True])


def test_the_number_of_dimensions_must_be_known():
    result = normdoctor.convert(nn.Sequential(nn.SyncBatchNorm(8)), "sync->batch", verify=False)
    assert "pass inputs=" in result.refused[0].reason
    result = normdoctor.convert(nn.Sequential(nn.SyncBatchNorm(8)), "sync->batch", inputs=X2.float())
    assert type(result.model[0]) is nn.BatchNorm2d


def test_specs_and_their_other_names():
    assert find_conversion("any -> none") is find_conversion("batch->none")
    assert len(all_conversions()) >= 17
    for spec, kind in all_conversions().items():
        assert spec == kind.spec
        assert kind.__doc__
        assert kind.exact <= {"eval", "train"}


class Wrong(nn.BatchNorm2d):
    """Agrees with BatchNorm on what it was tried with, and not on what it gets here."""

    def forward(self, x):
        y = super().forward(x)
        return y * 2 if x.abs().max() > 50 else y


def test_an_exact_conversion_that_is_not_is_taken_back():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), Wrong(8))
    before, kinds = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for spec in ("batch->sync", "batch->frozen", "batch->ghost"):
        with pytest.raises(RewriteError, match="should be exact and is not"):
            normdoctor.convert(model, spec, inputs=X2.float() * 1000, inplace=True, optimizer=optimizer)
        assert [type(m) for m in model.modules()] == kinds
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert optimizer.param_groups[0]["params"] == list(model.parameters())
    result = normdoctor.convert(model, "batch->sync", inputs=X2.float() * 1000, verify=False)
    assert not result.verified
    assert result.differences["eval"].relative > 0.1
