"""Odd models, odd arguments, failures midway: one clear error or refusal each, and no trace of it."""

import copy
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import normdoctor
from normdoctor import layers
from normdoctor.errors import RewriteError, UsageError
from normdoctor.rewriting.conversions import all_conversions
from normdoctor.rewriting.conversions.batch_sync import BatchToSync

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )


def picture(model):
    """What a model is, down to the objects."""
    return [
        (path, id(m), type(m), [(k, id(v)) for k, v in vars(m).items() if k[0] != "_" or "hooks" in k],
         [(k, id(v), None if v is None else v.detach().clone())
          for k, v in (*m._parameters.items(), *m._buffers.items())])
        for path, m in model.named_modules()
    ]  # fmt: skip


def same(a, b):
    for one, other in zip(a, b, strict=True):
        assert one[:4] == other[:4]
        for (k, i, v), (key, identity, value) in zip(one[4], other[4], strict=True):
            assert (k, i) == (key, identity)
            assert (v is None and value is None) or torch.equal(v, value)


@pytest.mark.parametrize("spec", ["batch->group", "batch->none", "batch->frozen", "batch->sync"])
def test_a_failure_midway_leaves_no_trace(spec, monkeypatch):
    model = net()
    model(X)
    optimizer = torch.optim.Adam(model.parameters())
    model(X).sum().backward()
    optimizer.step()
    before = picture(model)
    groups, state = list(optimizer.param_groups[0]["params"]), dict(optimizer.state)
    kind = all_conversions()[spec]
    calls, original = [], kind.replacement

    def fails(self, place, scene):
        calls.append(place.path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, place, scene)

    monkeypatch.setattr(kind, "replacement", fails)
    with pytest.raises(KeyboardInterrupt):
        normdoctor.convert(model, spec, inputs=X, inplace=True, optimizer=optimizer)
    same(picture(model), before)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in groups]
    assert list(optimizer.state) == list(state)


def test_a_failure_after_the_optimizer_was_changed(monkeypatch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, groups = picture(model), list(optimizer.param_groups[0]["params"])
    monkeypatch.setattr("normdoctor.rewriting.convert.unequal", lambda *_: "they differ")
    with pytest.raises(RewriteError, match="everything was taken back"):
        normdoctor.convert(model, "batch->none", inputs=X, inplace=True, optimizer=optimizer)
    same(picture(model), before)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], groups, strict=True))


def test_whoever_holds_a_layer_holds_the_new_one():
    """Also where no walk over the model comes: closures, sets, weak references, bound methods."""
    model = net()
    norm = model[1]
    held, alone, bound = {norm}, weakref.ref(norm), norm.forward
    normdoctor.convert(model, "batch->group", inputs=X, inplace=True)
    assert isinstance(norm, layers.GroupNorm)
    assert model[1] is norm
    assert held == {norm}
    assert alone() is norm
    assert bound.__self__ is norm


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.DataParallel(net()), "wraps the model"),
        (lambda: torch.compile(net(), backend="eager"), "wraps the model"),
        (lambda: nn.Sequential(torch.compile(net(), backend="eager")), "`0` is compiled or wrapped"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d()), "lazy"),
    ],
)
def test_models_that_cannot_be_changed(make, words):
    with pytest.raises(RewriteError, match=words):
        normdoctor.convert(make(), "batch->group")


def test_compiled_in_place():
    model = net()
    model[1].compile(backend="eager")
    with pytest.raises(RewriteError, match="`1` is compiled"):
        normdoctor.convert(model, "batch->group", inplace=True)


@pytest.mark.filterwarnings("ignore")
def test_quantized():
    quantization = pytest.importorskip("torch.ao.quantization")
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    quantized = quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(RewriteError, match="`0` is quantized"):
        normdoctor.convert(quantized, "batch->none")


def test_a_graph_module_is_a_model():
    traced = torch.fx.symbolic_trace(net().eval())
    result = normdoctor.convert(traced, "batch->none", inputs=X)
    assert (result.verified, len(result.replaced)) == (True, 2)


def test_parametrized_norms_are_refused():
    model = net()
    parametrize.register_parametrization(model[1], "weight", nn.Softplus())
    result = normdoctor.convert(model, "batch->frozen", inputs=X)
    assert [(left.path, left.reason) for left in result.refused] == [("1", "its parameters are parametrized")]
    assert [one.path for one in result.replaced] == ["4"]


class Odd(nn.BatchNorm2d):
    def scale(self):
        return self.weight


class Checks(nn.BatchNorm2d):
    def _check_input_dim(self, input):
        pass


@pytest.mark.parametrize("kind", [Odd, Checks])
def test_subclasses_with_more_than_a_forward(kind):
    result = normdoctor.convert(nn.Sequential(kind(8)), "batch->group")
    name = "scale" if kind is Odd else "_check_input_dim"
    assert result.refused[0].reason == f"{kind.__name__} has `{name}` of its own, which would be lost"


class Doubles(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


class OnlyTrain(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) if self.training else x


class Plain(nn.BatchNorm2d):
    """Written out, and the same as its base."""

    def forward(self, x):
        self._check_input_dim(x)
        training = self.training or self.running_mean is None
        if self.training:
            self.num_batches_tracked.add_(1)
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training, self.momentum, self.eps
        )


@pytest.mark.parametrize(("kind", "fine"), [(Doubles, False), (OnlyTrain, False), (Plain, True)])
def test_forwards_are_judged_by_what_they_compute(kind, fine):
    result = normdoctor.convert(nn.Sequential(nn.Conv2d(3, 8, 1), kind(8)), "batch->sync", inputs=X)
    assert len(result.replaced) == fine
    assert len(result.refused) == (not fine)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": 3}, "where is an int"),
        ({"where": [3]}, "where is a list"),
        ({"verify": 1}, "verify is an int"),
        ({"inplace": "yes"}, "inplace is a str"),
        ({"optimizer": "adam"}, "optimizer is a str"),
        ({"num_groups": True}, "num_groups"),
    ],
)
def test_arguments(arguments, words):
    with pytest.raises(UsageError, match=words):
        normdoctor.convert(net(), "batch->group", **arguments)


def test_where():
    model = net()
    report = normdoctor.check(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.9)), inputs=X)
    finding = next(one for one in report.findings if one.code == "ND202")
    for where, paths in (
        (nn.BatchNorm2d, ["1", "4"]), ((nn.BatchNorm2d,), ["1", "4"]), (nn.BatchNorm1d, []),
        (finding, ["1"]), ([finding], ["1"]), (report, ["1"]), ([finding, "4"], ["1", "4"]),
        ("[14]", ["1", "4"]), (iter(["1"]), ["1"]), (lambda path, module: path == "4", ["4"]),
    ):  # fmt: skip
        result = normdoctor.convert(model, "batch->sync", where=where, inputs=X)
        assert [one.path for one in result.replaced] == paths


def test_in_place_without_the_optimizer():
    told = "the model has other parameters now: optimizer= keeps one in step"
    assert told in normdoctor.convert(net(), "batch->none", inputs=X, inplace=True).notes
    assert told not in normdoctor.convert(net(), "batch->sync", inputs=X, inplace=True).notes


def test_where_that_chooses_nothing_says_so():
    result = normdoctor.convert(net(), "batch->sync", where="layer9.*", inputs=X)
    assert result.notes == ("where chose none of the 2 layers that the conversion is about",)


def test_large_models_are_not_run_unasked(monkeypatch):
    monkeypatch.setattr("normdoctor.rewriting.convert.UNASKED", 100)
    result = normdoctor.convert(net(), "batch->none")
    assert (result.verified, len(result.replaced), result.differences) == (False, 2, {})
    assert "not verified: the model is large, and no inputs were given" in result.notes
    assert normdoctor.convert(net(), "batch->none", inputs=X).verified


def test_in_inference_mode():
    model = net()
    with torch.inference_mode():
        result = normdoctor.convert(model, "batch->none", inputs=X)
        with pytest.raises(RewriteError, match="inference tensors"):
            normdoctor.convert(net(), "batch->none", inputs=X)
    result.model(X).sum().backward()
    assert all(p.grad is not None for p in result.model.parameters())


@pytest.mark.parametrize("count", ["None", "deleted"])
def test_without_a_counter_of_batches(count):
    model = net()
    if count == "None":
        model[1].num_batches_tracked = None
    else:
        del model[1].num_batches_tracked
    for spec in ("torch->own", "batch->sync", "batch->frozen", "batch->none"):
        result = normdoctor.convert(model, spec, inputs=X)
        assert result.verified
        assert not any(value.is_meta for value in (*result.model.parameters(), *result.model.buffers()))


def test_names_lead_back_to_parameters_and_keys():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3)
            self.norm = self.alias = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.alias(self.a(x))

    result = normdoctor.convert(Tied(), "batch->none", inputs=X)
    assert result.replaced[0].aliases == ("alias",)
    assert result.key_map["norm.bias"] is None  # the convolution had one
    assert result.parameter_map["a.bias"] == "a.bias"
    assert result.parameter_map["alias.weight"] is None


def test_layers_are_saved_and_copied():
    model = net().eval()
    for spec in all_conversions():
        result = normdoctor.convert(model, spec, inputs=X)
        again = copy.deepcopy(result.model)
        assert torch.equal(again(X), result.model(X))
        again.load_state_dict(result.model.state_dict())


def test_a_pickled_model_comes_back(tmp_path):
    model = normdoctor.convert(net(), "batch->frozen", inputs=X).model
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    back = normdoctor.convert(loaded, "frozen->batch", inputs=X)
    assert [type(m) for m in back.model] == [type(m) for m in net()]


def test_calibration_helps_or_is_left():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    data = [torch.randn(32, 3, 8, 8) * torch.rand(32, 1, 1, 1) * 2 for _ in range(6)]
    for batch in data * 20:
        model.train()(batch)
    errors = {}
    for given in (None, data):
        result = normdoctor.convert(model, "batch->group", inputs=data[1], num_groups=16, data=given)
        errors[given is None] = result.differences["eval"].relative
    assert any(note.startswith("data:") for note in result.notes)
    assert errors[False] <= errors[True]


def test_no_model_of_this_machine_is_imported():
    """Peers are no dependency."""
    assert "opacus" not in sys.modules
    assert BatchToSync.exact == {"eval", "train"}
