"""Odd models, data and loops: nothing is changed, and one clear error says what is wrong."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.errors import UsageError


class Counting(nn.Module):
    """Changes, when it is scripted, what TorchScript keeps outside of Python."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.seen = torch.zeros(2)
        self.count = 0
        self.sizes = [1]
        self.register_buffer("moving", torch.zeros(2))

    def forward(self, x):
        self.count += 1
        self.sizes.append(2)
        self.seen = self.seen + 1
        self.moving = self.moving + 1
        return self.norm(x)


def scripted_state(model):
    attributes = [getattr(model, name, None) for name in ("count", "sizes", "seen", "moving")]
    modes = [getattr(module, "training", None) for module in model.modules()]
    return repr((modes, attributes, list(model.named_parameters()), list(model.named_buffers())))


SCRIPTED = {
    "scripted": lambda: torch.jit.script(Counting()),
    "a part": lambda: nn.Sequential(nn.Linear(3, 3), torch.jit.script(Counting())),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 3)).eval())),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", SCRIPTED)
def test_scripted_modules_are_left_as_they_were(kind):
    model = SCRIPTED[kind]()
    before = scripted_state(model)
    report = normdoctor.check(model, torch.randn(4, 3), data=[torch.randn(4, 3)] * 3)
    assert not report.problems
    assert scripted_state(model) == before
    if kind != "a part":
        with pytest.raises(UsageError, match="a ScriptModule runs without Python"):
            normdoctor.recalibrate(model, [torch.randn(4, 3)])


class Drawing(nn.Module):
    """Draws from generators of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.torch = torch.Generator().manual_seed(5)
        self.others = [random.Random(3), {"new": np.random.default_rng(2), "old": np.random.RandomState(1)}]

    def forward(self, x):
        python, numpy = self.others
        drawn = torch.rand((), generator=self.torch) + numpy["new"].random() + numpy["old"].rand()
        return self.linear(x) * drawn * python.random()

    def states(self):
        python, numpy = self.others
        held = numpy["new"].bit_generator.state, numpy["old"].get_state(legacy=False)
        return self.torch.get_state().tolist(), python.getstate(), repr(held)


@pytest.mark.parametrize("given", [{}, {"data": [torch.randn(4, 3)] * 2}])
def test_generators_of_the_model_are_put_back(given):
    model = Drawing()
    before = model.states()
    assert not normdoctor.check(model, torch.randn(4, 3), **given).problems
    assert model.states() == before
    model(torch.randn(4, 3))
    assert model.states() != before


def endless():
    return endless


class AnyName(nn.Linear):
    def forward(self, **batch):
        return super().forward(batch["x"])


X = torch.randn(4, 3)
REFUSED = {
    "a factory of itself": (nn.Linear(3, 2), {"data": endless}, "found what the data returned to be a func"),
    "keys that are no names": (
        nn.Linear(3, 2),
        {"data": [X], "batch_to_inputs": lambda batch: {0: batch}},
        "a dict with the key 0: expected names",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_that_cannot_be_used(kind):
    model, given, words = REFUSED[kind]
    with pytest.raises(UsageError, match=words):
        normdoctor.check(model, **given)


def test_keys_that_are_no_names_are_left_out():
    report = normdoctor.check(AnyName(3, 2), data=[{"x": X, 7: X}])
    assert not report.problems


def test_recalibration_on_meta_says_so():
    with pytest.raises(UsageError, match="is on the meta device"):
        normdoctor.recalibrate(nn.Sequential(nn.BatchNorm1d(3)).to("meta"), [X])


class Growing(nn.Module):
    """Cannot be recorded: its layers fit the sizes of the batches that it is given, and it grows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(37, 3)

    def forward(self, x):
        if x.is_meta or len(x) != 5:
            raise ValueError("five samples, and no others")
        return self.linear(x.flatten(1))


def test_the_reason_of_a_recording_that_failed_is_that_of_the_inputs_that_were_known():
    model = Growing()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        model(torch.randn(5, 37)).sum().backward()
        w.step()
    (note,) = [note for note in w.report().targets[0].notes if "not recorded" in note]
    assert "five samples" in note
    assert "no inputs were given" not in note


@pytest.mark.parametrize("loss", [np.float32(2.0), np.float64(2.0), np.int64(2), 2, 2.0, torch.tensor(2)])
def test_losses_that_are_numbers(loss):
    model = nn.Linear(3, 2)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        model(X).sum().backward()
        w.step(loss)
    assert w.history()["losses"]["loss"]["value"] == [(0, 2.0)]


class Few(torch.Tensor):
    """A tensor of a class of its own, which knows few operations."""

    KNOWN = ("detach", "relu", "threshold_backward", "sum", "expand", "ones_like")

    @staticmethod
    def __new__(cls, held):
        given = {"dtype": held.dtype, "device": held.device, "requires_grad": held.requires_grad}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **given)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function.__name__.partition(".")[0] not in cls.KNOWN:
            raise NotImplementedError(function.__name__)
        bare = [one.held if isinstance(one, Few) else one for one in args]
        made = function(*bare, **(kwargs or {}))
        return Few(made) if function.__name__.startswith(("relu", "detach")) else made


class Special(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        special = torch.relu(Few(self.linear(x).detach()))
        return self.linear(x).sum() + special.sum()


def test_a_tensor_that_cannot_be_measured_ends_no_forward():
    model, x = Special(), torch.randn(2, 4)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        model(x).backward()
        w.step()
    assert any("relu could not be measured in full" in note for note in w.report().targets[0].notes)
    (target,) = normdoctor.check(model, x, data=[x]).targets
    assert any("relu could not be measured in full" in note for note in target.notes)


class Ragged(nn.Module):
    """Takes or makes nested tensors."""

    def __init__(self, layout):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.layout = layout

    def forward(self, x):
        rows = x if x.is_nested else torch.nested.as_nested_tensor([x[0, :3], x[1]], layout=self.layout)
        return torch.nested.to_padded_tensor(self.linear(rows), 0.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors(layout):
    model, x = Ragged(layout), torch.randn(2, 5, 4)
    normdoctor.check(model, x, data=[x, x])
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(x).sum().backward()
            w.step()
    w.report()
    rows = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(5, 4)], layout=torch.jagged)
    (problem,) = normdoctor.check(model, rows).problems
    assert "a nested tensor has no sizes that can be recorded" in problem.message


class Complex(nn.Module):
    """Only the imaginary part of its weight is trained."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.complex64))

    def forward(self, x):
        return x * self.weight.imag


@pytest.mark.filterwarnings("error")
def test_both_parts_of_complex_weights_are_looked_at():
    model = Complex()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(8):
            optimizer.zero_grad()
            loss = model(torch.ones(3, 4)).sum()
            loss.backward()
            optimizer.step()
            w.step(loss)
    assert w.measurements()["updates"]["weight"]["still"] == 0
    assert not w.report().findings


def test_rounding_is_no_reason_where_nothing_is_known_to_step():
    model = nn.Sequential(nn.Linear(4, 4)).bfloat16()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(8):
            model(torch.randn(3, 4).bfloat16()).square().sum().backward()
            w.step()
            model.zero_grad()
    (finding,) = [one for one in w.report().findings if one.code == "ND805"]
    assert "rounds" not in finding.message


def test_layerwise_is_true_or_false():
    with pytest.raises(UsageError, match="layerwise is a str"):
        normdoctor.recalibrate(nn.Sequential(nn.BatchNorm1d(3)), [X], layerwise="yes")


class Waiting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.began, self.go = threading.Event(), threading.Event()

    def forward(self, x):
        x = torch.relu(self.linear(x))
        self.began.set()
        assert self.go.wait(20)
        return torch.relu(x)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_watch_may_end_while_another_thread_is_in_the_forward(steps):
    model, seen = Waiting(), []

    def forward():
        seen.append(model(X).shape)
        seen.append(torch._C._len_torch_function_stack())

    thread = threading.Thread(target=forward)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        thread.start()
        assert model.began.wait(20)
        for _ in range(steps):
            w.step()
    model.go.set()
    thread.join(20)
    assert seen == [(4, 3), 0]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
