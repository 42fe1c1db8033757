"""The given model stays as it is, and what is called exact is exact, whatever the arguments are."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.errors import RewriteError, TraceError, UsageError
from normdoctor.rewriting.verify import Outputs, compare

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, **options), nn.BatchNorm2d(8))
    model[1].running_var.uniform_(0.5, 2)
    return model


class Own(nn.Module):
    def __init__(self, run=None):
        super().__init__()
        self.conv, self.bn = net()
        self.run = run

    def forward(self, x):
        return self.run(self, x)


class Closure(nn.Module):
    """A copy of it runs the original's layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = net()
        self.run = lambda x: self.bn(self.conv(x))

    def forward(self, x):
        return self.run(x)


class Itself(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


class Weightless(nn.Module):
    """Copies of it have the same parameter."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = net()

    def __deepcopy__(self, memo):
        made = Weightless()
        made.conv.weight = self.conv.weight
        return made

    def forward(self, x):
        return self.bn(self.conv(x))


@pytest.mark.parametrize("spec", ["batch->none", "batch->group", "torch->own"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Closure, "calls `conv` of the original"),
        (lambda: Itself(*net()), "shares all that it is"),
        (lambda: nn.Sequential(Itself(*net())), "shares `0`"),
        (Weightless, r"shares `conv\.weight`"),
    ],
)
def test_a_copy_that_is_none(make, words, spec):
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kinds = [type(one) for one in model.modules()]
    with pytest.raises(RewriteError, match=words):
        normdoctor.convert(model, spec, inputs=X)
    assert [type(one) for one in model.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert normdoctor.convert(model, spec, inputs=X, inplace=True).replaced


@pytest.mark.parametrize(
    "run",
    [
        lambda self, x: (self.bn(self.conv(x)) * 1e7, F.conv2d(x, self.conv.weight)),
        lambda self, x: (self.bn(self.conv(x)) * 1e7, self.conv.weight.sum()),
        lambda self, x: (self.bn(self.conv(x)) * 1e7, self.conv.weight.data.abs().sum()),
        lambda self, x: (self.bn(self.conv(x)) * 1e7, self.conv.bias.sum()),
        lambda self, x: (self.bn(self.conv(x)) * 0 + F.conv2d(x, self.conv.weight)).flatten(1).argmax(1),
    ],
)
def test_a_weight_that_other_code_reads_is_not_folded_into(run):
    result = normdoctor.convert(Own(run), "batch->none", inputs=X)
    assert result.replaced == ()
    assert "too" in result.refused[0].reason


def outputs(**values):
    return Outputs({"eval": {name: torch.as_tensor(value) for name, value in values.items()}})


def test_a_large_output_does_not_hide_a_small_one():
    old = outputs(a=[1e7, 2e7], b=[1.0, 1.0])
    assert compare(old, outputs(a=[1e7, 2e7], b=[1.0, 2.0]))["eval"].relative > 0.5
    assert compare(old, old)["eval"].relative == 0


def test_a_zero_that_is_rounded_is_no_other_output():
    found = compare(outputs(a=[1.0, 2.0], b=[1e-9]), outputs(a=[1.0, 2.0], b=[-1e-9]))["eval"]
    assert found.relative < 1e-5


def test_classes_count():
    assert compare(outputs(a=[1, 2, 3]), outputs(a=[1, 2, 4]))["eval"].relative == pytest.approx(1 / 3)
    assert compare(outputs(a=[True]), outputs(a=[False]))["eval"].relative == 1


@pytest.mark.parametrize("where", [nn.ReLU(), net(), int])
def test_where_of_odd_kinds(where):
    with pytest.raises(UsageError, match="where is a"):
        normdoctor.convert(net(), "batch->group", where=where)


@pytest.mark.parametrize(
    "where", [lambda: True, lambda path, module: 1 / 0, lambda path, module: torch.ones(2)]
)
def test_where_that_raises(where):
    with pytest.raises(UsageError, match="the function given as where raised for `1`"):
        normdoctor.convert(net(), "batch->group", where=where)


def test_inputs_without_values():
    with pytest.raises(UsageError, match="meta"):
        normdoctor.convert(net(), "batch->group", inputs=X.to("meta"))
    assert "empty" in normdoctor.convert(net(), "batch->none", inputs=X[:0]).refused[0].reason


@pytest.mark.parametrize("data", [[X[:, :1]], [X.double()], [X.long()]])
def test_data_that_the_model_does_not_take(data):
    with pytest.raises(TraceError, match="raised on a batch of the data"):
        normdoctor.convert(net(), "batch->group", inputs=X, data=data)


def test_data_without_batches():
    with pytest.raises(UsageError, match="no batches"):
        normdoctor.convert(net(), "batch->group", inputs=X, data=[])


def test_a_loader_does_not_move_the_random_numbers():
    state = torch.get_rng_state()
    loader = torch.utils.data.DataLoader([X[0], X[1]], batch_size=2, shuffle=True)
    normdoctor.convert(net(), "batch->group", inputs=X, data=loader)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fails", [KeyboardInterrupt, RuntimeError])
def test_calibration_that_is_broken_off_leaves_no_trace(monkeypatch, fails):
    from normdoctor.rewriting.calibrate import Calibration

    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    original, calls = Calibration._error, []

    def error(self):
        calls.append(1)
        if len(calls) == 2:
            raise fails
        return original(self)

    monkeypatch.setattr(Calibration, "_error", error)
    with pytest.raises(fails):
        normdoctor.convert(model, "batch->group", inputs=X, data=[X, X], inplace=True)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_lbfgs_trains_the_new_bias():
    model = net(bias=False)
    model[1] = nn.BatchNorm2d(8, affine=False)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(X).square().mean() + model(X).sum() * 1e-3
        loss.backward()
        return loss

    optimizer.step(closure)
    normdoctor.convert(model, "batch->none", inputs=X, inplace=True, optimizer=optimizer)
    bias = model[0].bias.detach().clone()
    optimizer.step(closure)
    assert not torch.equal(model[0].bias, bias)


def test_under_autocast_no_old_cast_is_taken_for_the_weight():
    with torch.autocast("cpu", torch.bfloat16):
        result = normdoctor.convert(net(), "batch->none", inputs=X)
    assert result.differences["eval"].relative < 0.02
