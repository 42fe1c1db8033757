"""Counting the activity of units, from hooks that leave nothing behind."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from normdoctor.errors import TraceError, UsageError
from normdoctor.facts import Facts
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.hooks import Observer
from normdoctor.probing.plan import planned
from normdoctor.probing.probe import measure
from normdoctor.probing.probe import probe as probe_all


def probe(model, data):
    """The figures of activations."""
    return activations(probe_all(model, data)["units"])


def activations(units):
    return {name: figures for name, figures in units.items() if figures["role"] == "activation"}


def observing(model, budget=None):
    observer = Observer(model, planned(budget=budget))
    observer.attach()
    return observer


def seen(observer):
    observer.detach()
    return activations(observer.read()["units"])


class Functional(nn.Module):
    """A ReLU in every spelling, one module called twice."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.fc(x))
        x = F.relu(self.fc(x))
        x = torch.relu(self.fc(x))
        x = self.fc(x).relu_()
        return self.act(self.fc(x))


def kill(layer: nn.Linear | nn.Conv2d, units: int) -> None:
    with torch.no_grad():
        layer.bias[:units] = -1000.0


def hooks_of(model: nn.Module) -> int:
    names = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_always_called",
        "_forward_hooks_with_kwargs",
    )
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


def test_counts_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    kill(model[0], 2)
    data = [torch.randn(10, 4) for _ in range(3)]
    found = probe(model, data)
    expected = sum((model(x) > 0).sum(0) for x in data)
    (figures,) = found.values()
    assert figures["active"] == pytest.approx((expected / 30).tolist(), abs=1e-6)
    assert figures["active"][:2] == [0, 0]
    assert (figures["units"], figures["observations"], figures["batches"]) == (6, 30, 3)


def test_every_spelling_is_a_site():
    model = Functional()
    kill(model.fc, 3)
    found = probe(model, [torch.randn(5, 8)] * 2)
    assert sorted(found) == [":relu", ":relu#1", ":relu#2", "act:relu", "act:relu#1"]
    assert all(site["active"].count(0) >= 3 and site["observations"] == 10 for site in found.values())


def test_kinds():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU6(), nn.GELU(), nn.Hardtanh(), nn.LeakyReLU(), nn.Sigmoid())
    found = probe(model, [torch.randn(2, 4)])
    assert [site["kind"] for site in found.values()] == "relu6 gelu hardtanh leaky_relu sigmoid".split()


@pytest.mark.parametrize(
    ("build", "shape", "units", "observations"),
    [
        (lambda: nn.Conv2d(3, 5, 3), (2, 3, 8, 8), 5, 72),
        (lambda: nn.Conv2d(3, 5, 3), (3, 8, 8), 5, 36),
        (lambda: nn.Conv1d(3, 5, 3), (2, 3, 8), 5, 12),
        (lambda: nn.ConvTranspose2d(3, 5, 3), (2, 3, 4, 4), 5, 72),
        (lambda: nn.Linear(3, 5), (2, 7, 3), 5, 14),
        (lambda: nn.Linear(3, 5), (2, 4, 4, 3), 5, 32),
        (lambda: nn.Linear(3, 5), (3,), 5, 1),
        (lambda: nn.Sequential(nn.Conv1d(3, 5, 1), nn.BatchNorm1d(5)), (2, 3, 8), 5, 16),
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)), (2, 7, 3), 5, 14),
        (lambda: nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten()), (2, 3, 4, 4), 80, 2),
    ],
)
def test_units_lie_along_the_axis_that_the_layer_wrote(build, shape, units, observations):
    (figures,) = probe(nn.Sequential(build(), nn.ReLU()), [torch.randn(shape)]).values()
    assert (figures["units"], figures["observations"]) == (units, observations)


def test_batches_of_every_kind():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x, scale=1.0):
            return self.net(x) * scale

    x = torch.randn(6, 4)
    for data in ([x], [(x, torch.ones(6))], [[x, 1]], x, iter([x]), torch.utils.data.DataLoader(x, 6)):
        assert probe(model, data)["1:relu"]["observations"] == 6
    for data in ([{"x": x, "scale": 2.0}], {"x": x}, [({"x": x}, 1)]):
        assert probe(Named(), data)["net.1:relu"]["observations"] == 6


@pytest.mark.parametrize(
    ("data", "error"),
    [([], UsageError), ("abc", UsageError), (3, UsageError), ([()], UsageError), (["a"], UsageError)],
)
def test_bad_data(data, error):
    with pytest.raises(error, match="batch"):
        probe(nn.Linear(4, 4), data)


def test_a_batch_that_does_not_fit():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(TraceError, match="RuntimeError on batch 1 of the data"):
        probe(model, [torch.randn(2, 4), torch.randn(2, 5)])
    assert hooks_of(model) == 0


def test_no_trace():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5))
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    facts = measure(
        model, [torch.randn(8, 4, generator=torch.Generator().manual_seed(0))], Facts(target="net")
    )
    assert facts.measurements["units"]["2:relu"]["observations"] == 8
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert hooks_of(model) == 0
    assert model.training


def test_forward_that_raises_leaves_no_mode_behind():
    class Raises(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    model = nn.Sequential(nn.ReLU(), Raises())
    observer = observing(model)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            model(torch.ones(2))
    F.relu(torch.ones(5))  # outside of any forward: not ours
    assert seen(observer)["0:relu"]["batches"] == 2
    assert hooks_of(model) == 0


def test_interrupt_leaves_no_mode_behind():
    class Interrupts(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    model = nn.Sequential(nn.ReLU(), Interrupts())
    with pytest.raises(KeyboardInterrupt):
        probe(model, [torch.ones(2)])
    assert torch.overrides._get_current_function_mode_stack() == []


def test_varying_units_are_left_out():
    model = nn.Sequential(nn.ReLU())
    assert probe(model, [torch.ones(2, 3), torch.ones(2, 4)]) == {}


def test_recomputation_is_no_new_observation():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x):
            return checkpoint(self.net, x, use_reentrant=False)

    model = Checkpointed()
    observer = observing(model)
    model(torch.randn(3, 4, requires_grad=True)).sum().backward()
    assert seen(observer)["net.1:relu"]["observations"] == 3


def test_copies_and_pickles_made_meanwhile_are_free_of_hooks():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    observer = observing(model)
    twin, loaded = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in (twin, loaded):
        other(torch.randn(2, 4))
    assert seen(observer) == {}


def test_a_model_saved_meanwhile_needs_no_normdoctor():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    observing(model)
    assert b"normdoctor" not in pickle.dumps(model)


def test_vmap_is_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    observer = observing(model)
    torch.func.vmap(model)(torch.randn(3, 4))
    assert seen(observer) == {}


def test_wrappers_are_looked_through():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert unwrapped(torch.compile(nn.DataParallel(model))) is model
    assert list(probe(torch.compile(model, backend="eager"), [torch.randn(2, 4)])) == ["1:relu"]


def test_a_budget_thins_batches():
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU())
    observer = observing(model, budget=50)
    model(torch.randn(100, 4))
    assert seen(observer)["1:relu"]["observations"] == 5


@pytest.mark.parametrize("act", ["sigmoid", "tanh", "hardsigmoid", "hardtanh"])
def test_saturation_is_measured_as_by_rakitianskaia_and_engelbrecht(act):
    """phi = sum(abs(mean of bin) * count) / sum(count) over ten bins of the outputs scaled to [-1, 1]."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(4, 6), _ACTS[act]()), [torch.randn(50, 4) * 3 for _ in range(3)]
    ((_, figures),) = probe(model, data).items()
    with torch.no_grad():
        values = torch.cat([model(x) for x in data]).double()
    scaled = values * 2 - 1 if "sigmoid" in act else values
    bins = ((scaled + 1) * 5).long().clamp(0, 9)
    parts = [scaled[bins == one] for one in range(10)]
    phi = sum(abs(part.mean()) * part.numel() for part in parts if part.numel()) / scaled.numel()
    assert figures["level"] == pytest.approx(float(phi), abs=1e-5)


_ACTS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "hardsigmoid": nn.Hardsigmoid, "hardtanh": nn.Hardtanh}


def test_figures_of_a_batch_with_nan_are_left_out():
    model, good = nn.Sequential(nn.Tanh()), torch.randn(20, 3)
    bad = good.clone()
    bad[0, 1] = torch.nan
    ((_, figures),) = probe(model, [good, bad]).items()
    assert (figures["observations"], figures["bad_batches"]) == (40, 1)
    assert figures["unit_mean"][1] == pytest.approx(good.tanh()[:, 1].mean().item(), rel=1e-4)
