"""`normdoctor.convert(model, "batch->group")`: what is kept, what is refused, what is reported."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import normdoctor
from normdoctor.errors import RewriteError, TraceError, UsageError
from normdoctor.layers import GroupNorm
from normdoctor.rewriting.conversions import all_conversions
from normdoctor.rewriting.conversions.batch_group import choose_groups


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16, eps=1e-3), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Flatten(), nn.Linear(32 * 16, 8), nn.BatchNorm1d(8),
    )  # fmt: skip


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def convert(model, **options):
    return normdoctor.convert(model, "batch->group", **options)


def test_the_original_is_untouched():
    model = net()
    before, twin = copy.deepcopy(model.state_dict()), repr(model)
    result = convert(model, inputs=X)
    assert repr(model) == twin
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in result.model.modules())
    assert [(r.path, r.new.split("(")[0]) for r in result.replaced] == [
        ("1", "GroupNorm"), ("4", "GroupNorm"), ("7", "GroupNorm"),
    ]  # fmt: skip
    assert result.verdict == "approximate"
    assert result.model[1].eps == 1e-3


def test_difference_is_what_a_user_would_measure():
    model = net().eval()
    result = convert(model, inputs=X)
    with torch.no_grad():
        old, new = model(X), result.model(X)
    assert result.differences["eval"].largest == pytest.approx((old - new).abs().max().item())
    assert result.differences["eval"].relative == pytest.approx(
        ((old - new).norm() / old.norm()).item(), rel=1e-5
    )
    assert result.differences["train"].largest > 0
    assert not result.model.training
    assert "eval outputs differ: max" in str(result)


def test_without_inputs_nothing_is_claimed():
    result = convert(net())
    assert result.differences == {}
    assert "differ" not in str(result)


def test_parameters_and_optimizer_keep_their_identity():
    model = net()
    parameters, twin = list(model.parameters()), dict(model.named_parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    model(X).sum().backward()
    optimizer.step()
    result = convert(model, inplace=True, optimizer=optimizer, inputs=X)
    assert result.model is model
    now = {id(p) for p in model.parameters()}
    assert now >= {id(p) for p in parameters}
    # The statistics went into the convolution in front, which needs a bias for them: it is trained too.
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == now
    assert result.parameter_map == {name: name for name in twin}
    before = model[1].weight.detach().clone()
    optimizer.zero_grad()
    model(X).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_an_optimizer_does_not_fit_a_copy():
    model = net()
    with pytest.raises(UsageError, match="inplace=True"):
        convert(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def test_an_optimizer_of_another_model():
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(UsageError, match="holds no parameter of the model"):
        convert(net(), optimizer=optimizer, inplace=True)


def test_state_dict_keys():
    model = net()
    result = convert(model)
    assert set(result.key_map) == set(model.state_dict())
    assert {k for k, new in result.key_map.items() if new} == set(result.model.state_dict())
    gone = [key for key, new in result.key_map.items() if new is None]
    assert len(gone) == 9
    assert all(key.split(".")[1] in ("running_mean", "running_var", "num_batches_tracked") for key in gone)


def test_aliases_stay_one_object():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.BatchNorm2d(8)
            self.b = self.a
            self.inner = nn.Sequential(self.a)
            self.listed = [self.a]
            self.paired = (self.a, "name")
            self.named = {"x": [self.a]}

        def forward(self, x):
            return self.paired[0](self.listed[0](self.inner(self.b(self.a(x)))))

    result = convert(Shared(), inputs=torch.randn(2, 8, 4, 4))
    model = result.model
    (replaced,) = result.replaced
    assert (replaced.path, replaced.aliases) == ("a", ("b", "inner.0"))
    assert isinstance(model.a, GroupNorm)
    others = (model.b, model.inner[0], model.listed[0], model.paired[0], model.named["x"][0])
    assert all(other is model.a for other in others)


def test_what_hangs_on_a_layer_is_kept():
    model = net().double()
    norm, calls = model[1], []
    norm.weight.requires_grad_(False)
    norm.eval()
    norm.tag = "stem"
    norm.register_buffer("mask", torch.ones(3), persistent=False)
    norm.register_module("probe", nn.Identity())
    handle = norm.register_forward_hook(lambda *_: calls.append("after"))
    norm.register_forward_pre_hook(lambda *_, **__: calls.append("before"), with_kwargs=True)
    norm.register_full_backward_hook(lambda *_: calls.append("backward"))
    convert(model, inplace=True)
    new = model[1]
    assert isinstance(new, GroupNorm)
    assert (new.training, new.weight.requires_grad, new.bias.requires_grad) == (False, False, True)
    assert (new.tag, new.weight.dtype) == ("stem", torch.float64)
    assert isinstance(new.probe, nn.Identity)
    assert "1.mask" not in model.state_dict()
    assert "1.mask" in dict(model.named_buffers())
    assert not hasattr(new, "momentum")
    model(X.double()).sum().backward()
    assert calls == ["before", "after", "backward"]
    handle.remove()
    model(X.double())
    assert calls == ["before", "after", "backward", "before"]


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_variants(options):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, **options))
    new = convert(model, inputs=X).model[1]
    assert isinstance(new, GroupNorm)
    assert (new.weight is None) == (options.get("affine") is False)
    assert convert(model, inputs=X).model(X).shape == (4, 8, 6, 6)


def test_a_model_that_is_one_norm():
    result = convert(nn.BatchNorm2d(8), inputs=torch.randn(2, 8, 3, 3), inplace=True)
    assert isinstance(result.model, GroupNorm)
    assert result.replaced[0].path == ""


class WithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Renamed(nn.BatchNorm2d):
    """A subclass that adds nothing to the forward."""


def refused_layers():
    scaled = nn.BatchNorm2d(8)
    parametrize.register_parametrization(scaled, "weight", nn.Identity())
    patched = nn.BatchNorm2d(8)
    patched.forward = lambda x: x
    return {
        "own forward": (WithActivation(8), "WithActivation has a forward of its own"),
        "parametrized": (scaled, "parametrized"),
        "patched": (patched, "forward of its own"),
        "single value": (nn.BatchNorm1d(1), "single value"),
    }


@pytest.mark.parametrize("name", list(refused_layers()))
def test_refused(name):
    layer, reason = refused_layers()[name]
    result = convert(nn.Sequential(layer))
    assert result.verdict == "refused"
    assert reason in result.refused[0].reason
    assert type(result.model[0]) is type(layer) or name == "parametrized"
    assert "refused" in str(result)


def test_a_subclass_without_its_own_forward_is_converted():
    assert isinstance(convert(nn.Sequential(Renamed(8))).model[0], GroupNorm)


def test_shapes_decide_about_single_values():
    model = nn.Sequential(nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8))
    assert convert(model, inputs=X, num_groups=8).refused[0].path == "1"
    assert convert(model, inputs=X, num_groups=4).replaced[0].path == "1"
    assert convert(nn.Sequential(nn.BatchNorm1d(1)), inputs=torch.randn(4, 1, 9)).replaced


def test_num_groups():
    result = convert(net(), num_groups=16)
    assert [r.path for r in result.replaced] == ["1", "4"]
    assert result.refused[0].reason == "16 groups do not divide 8 channels"
    with pytest.raises(UsageError, match="num_groups"):
        convert(net(), num_groups=0)


@pytest.mark.parametrize(
    ("channels", "fresh", "after_training"),
    [
        (1, 1, 1),
        (6, 1, 1),
        (8, 2, 1),
        (16, 4, 1),
        (32, 8, 2),
        (64, 16, 4),
        (128, 32, 4),
        (256, 32, 4),
        (84, 4, 4),
    ],
)
def test_choice_of_groups(channels, fresh, after_training):
    assert choose_groups(channels, False) == fresh
    assert choose_groups(channels, True) == after_training


def test_trained_statistics_are_named():
    model = net()
    model(X)
    told = str(convert(model, inputs=X))
    assert "3 trained BatchNorms: 3 folded into the layer in front, 0 kept by the new layer" in told
    assert not convert(net()).notes


def test_where():
    for where in ("1", ["1", "9"], lambda path, module: module.num_features == 16):
        assert [r.path for r in convert(net(), where=where).replaced] == ["1"]
    assert convert(net(), where="nothing").verdict == "exact"


def test_unknown_spec_lists_those_that_exist():
    assert {"batch->group", "batch->none", "torch->own", "own->torch"} <= set(all_conversions())
    with pytest.raises(UsageError, match=r"`batch->group`.*found 'batch->groups'(.|\n)*`batch->group`"):
        normdoctor.convert(net(), "batch->groups")


def test_a_model_that_cannot_be_copied():
    model = net()
    model.lock = threading.Lock()
    with pytest.raises(RewriteError, match="inplace=True"):
        convert(model)
    assert convert(model, inplace=True).verdict == "approximate"


def test_code_that_needs_the_old_layer_is_rolled_back():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(x) + self.norm.running_mean.mean()

    model = Reads()
    with pytest.raises(RewriteError, match="running_mean"):
        convert(model, inputs=torch.randn(2, 8, 3, 3), inplace=True)
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_wrappers_and_lazy_models_are_refused():
    with pytest.raises(RewriteError, match="wraps"):
        convert(nn.DataParallel(net()))
    with pytest.raises(RewriteError, match="lazy"):
        convert(nn.Sequential(nn.LazyBatchNorm2d()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_scripts_are_refused():
    with pytest.raises(RewriteError, match="scripted"):
        convert(nn.Sequential(torch.jit.script(nn.BatchNorm2d(8))))


def test_inputs_that_do_not_fit():
    with pytest.raises(TraceError, match="before it was changed"):
        convert(net(), inputs=torch.randn(4, 5, 8, 8))


def test_a_batch_of_one_is_compared_in_eval_mode_only():
    result = convert(net(), inputs=X[:1])
    assert list(result.differences) == ["eval"]
    assert "not compared in train mode" in result.notes[0]


def test_not_a_module():
    with pytest.raises(UsageError, match="module"):
        convert("model")


def test_own_batch_norms_are_converted_with_their_activation():
    from normdoctor.layers import BatchNorm2d

    net = nn.Sequential(nn.Conv2d(3, 16, 3), BatchNorm2d(16, activation="relu"))
    result = normdoctor.convert(net, "batch->group", inputs=torch.randn(4, 3, 8, 8))
    assert isinstance(result.model[1], GroupNorm)
    assert result.model[1].activation == "relu"
    assert result.model(torch.randn(4, 3, 8, 8)).min() >= 0
