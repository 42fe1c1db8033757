"""A probe takes the statistics of BatchNorms from our own layers, and reads their input no second time."""

import copy
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor import layers
from normdoctor.layers import reference, watched
from normdoctor.probing import normstats
from normdoctor.probing.hooks import Observer
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.probe import probe
from normdoctor.probing.units import UnitCollector

from .norms import BUILD, laid_out, scatter

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
RANKS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}
SHAPES = [(12, 5), (8, 5, 7), (8, 5, 4, 6), (6, 5, 2, 3, 4), (8, 16, 64, 64), (2, 4, 96, 700)]
OPTIONS = [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}]


@pytest.fixture
def reads(monkeypatch):
    """How many inputs were read by the collector itself, in whole and for the means of some samples."""
    counted = []
    for name in ("_of_samples", "_means"):
        real = getattr(normstats, name)

        def spy(*args, name=name, real=real, **kwargs):
            counted.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(normstats, name, spy)
    return counted


def pair(shape, dtype=torch.float32, **options):
    name = RANKS[len(shape)]
    own = scatter(getattr(layers, name)(shape[1], **options)).to(dtype)
    theirs = getattr(nn, name)(shape[1], **options).to(dtype)
    theirs.load_state_dict(own.state_dict())
    return own, theirs


def batches(shape, dtype=torch.float32, memory_format=None, count=3):
    torch.manual_seed(0)
    levels = [torch.randn(*shape[:2], *(1,) * (len(shape) - 2)) for _ in range(count)]
    found = [(torch.randn(shape) * 2 + 3 + level).to(dtype) for level in levels]
    return [one.contiguous(memory_format=memory_format) for one in found] if memory_format else found


def flat(figures):
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", one) for key, one in flat(value))
        elif isinstance(value, list):
            yield name, torch.tensor(value, dtype=torch.float64)
        else:
            yield name, value


def assert_same_figures(own, theirs, tolerance=1e-5):
    assert list(own) == list(theirs)
    for site, figures in theirs.items():
        ours = dict(flat(own[site]))
        for name, value in flat(figures):
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(ours[name], value, rtol=tolerance, atol=tolerance)
            else:
                assert ours[name] == pytest.approx(value), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_measuring_takes_all_figures_from_the_layer(reads, shape, last, options):
    if last and len(shape) not in LAST:
        pytest.skip("no such layout")
    data = batches(shape, memory_format=LAST[len(shape)] if last else None)
    own, theirs = pair(shape, **options)
    found = probe(nn.Sequential(own), data, [NormCollector()])
    assert reads == []
    expected = probe(nn.Sequential(theirs), data, [NormCollector()])
    assert "_of_samples" in reads
    assert_same_figures(found["batch_norm"], expected["batch_norm"], 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(reads, dtype):
    own, theirs = pair((8, 5, 4, 6), dtype)
    data = batches((8, 5, 4, 6), dtype)
    found = probe(own, data, [NormCollector()])["batch_norm"]
    assert reads == []
    expected = probe(theirs, data, [NormCollector()])["batch_norm"]
    assert_same_figures(found, expected, 1e-5 if dtype == torch.float64 else 2e-2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_normalized_values_stay(shape):
    """Output, gradients and running statistics while statistics of samples are asked for."""
    own, theirs = pair(shape)
    collector = NormCollector()
    observer = Observer(own, [collector])
    observer.attach()
    seed = torch.randn(shape)
    results = []
    for layer in (own, theirs):
        (x,) = batches(shape, count=1)
        x.requires_grad_()
        y = layer(x)
        gradients = torch.autograd.grad(y, (x, *layer.parameters()), seed)
        results.append((y, *gradients, *layer.buffers()))
    observer.detach()
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (3, 2, 3, 4)], ids=str)
def test_derivatives_of_what_is_merged_from_samples(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, shape[1], dtype=torch.float64).unbind(0)
    given = (x, weight.clone().requires_grad_(), bias.clone().requires_grad_())

    def function(*inputs):
        return watched.by_samples(*inputs, 1e-5)[0]

    torch.testing.assert_close(function(*given), reference.batch_norm(*given, 1e-5)[0])
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


def test_eval_mode_has_nothing_to_hand_over(reads):
    own, theirs = pair((8, 5, 7))
    data = batches((8, 5, 7))
    found = probe(own.eval(), data, [NormCollector()])["batch_norm"]
    assert "_of_samples" in reads
    assert_same_figures(found, probe(theirs.eval(), data, [NormCollector()])["batch_norm"])


def net(module):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), module.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        module.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def trained(model, size, watch=False, wrap=None):
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scope = normdoctor.watch(model, optimizer, every=1, on_finding="ignore") if watch else nullcontext()
    call = model if wrap is None else wrap(model)
    losses = []
    with scope as w:
        for _ in range(3):
            x, y = torch.randn(16, 3, size, size), torch.randint(4, (16,))
            loss = nn.functional.cross_entropy(call(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            if w is not None:
                w.step(loss)
    return losses, model.state_dict(), None if w is None else w.measurements()


LARGE = {
    "BatchNorm1d": (512, 6, 64), "BatchNorm2d": (8, 6, 64, 64), "BatchNorm3d": (2, 6, 32, 32, 16),
    "GroupNorm": (2, 6, 128, 128), "InstanceNorm2d": (2, 6, 160, 128), "RMSNorm": (64, 512, 8),
    "LayerNorm": (64, 256, 4, 3),
}  # fmt: skip


EVERY = [(name, shape) for name, (_, shape) in BUILD.items() if name != "LocalResponseNorm"]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("name", "shape"), [*EVERY, *LARGE.items()])
def test_watching_changes_no_bit(name, shape, last):
    build, _ = BUILD[name]
    x = laid_out(shape, "channels_last" if last else "contiguous", torch.float32, torch.Generator(), 1.0)
    seed, results = torch.ones(shape).cumsum(0), []
    for look in (False, True):
        model = nn.Sequential(scatter(build()))
        observer = Observer(model, [NormCollector(16), UnitCollector()])
        if look:
            observer.attach()
        for mode in (True, False):
            given = x.clone().requires_grad_()
            y = model.train(mode)(given)
            results.append(
                (y, *torch.autograd.grad(y, (given, *model.parameters()), seed, allow_unused=True))
            )
        results.append(tuple(model.buffers()))
        observer.detach()
    middle = len(results) // 2
    for one, other in zip(results[:middle], results[middle:], strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))
    figures = observer.read()
    kind = name.partition("Norm")[0].lower()
    if kind in ("batch", "group", "layer", "rms", "instance"):
        assert f"0:{kind}_norm" in figures["units"]


def checkpointed(model):
    return lambda x: torch.utils.checkpoint.checkpoint_sequential(model, 2, x, use_reentrant=False)


@pytest.mark.parametrize("wrap", [None, checkpointed])
@pytest.mark.parametrize("size", [12, 48])  # below and above where the layers leave torch's kernel
def test_watched_training_is_unwatched_training(reads, size, wrap):
    plain, watching, theirs = net(layers), net(layers), net(nn)
    losses, weights, _ = trained(plain, size, wrap=wrap)
    assert reads == []
    watched_losses, watched_weights, figures = trained(watching, size, watch=True, wrap=wrap)
    assert torch.equal(torch.stack(losses), torch.stack(watched_losses))
    for name, value in weights.items():
        assert torch.equal(value, watched_weights[name]), name
    kept = [module.statistics for module in watching if hasattr(module, "statistics")]
    for one, other in zip(kept, [m.statistics for m in plain if hasattr(m, "statistics")], strict=True):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.var, other.var)
        assert one.request is None
    if wrap is None:
        assert set(reads) == {"_means"}, "a batch was read in whole"
        expected = trained(theirs, size, watch=True)[2]["batch_norm"]
        assert_same_figures(figures["batch_norm"], expected, 2e-3)


def test_figures_of_a_watched_batch_are_exact():
    """Those of torch's layer come from the update of its buffers, which are far from the batch's here."""
    torch.manual_seed(0)
    x = torch.randn(32, 5, 8, 8) * 1e-2
    x += torch.arange(5.0).view(5, 1, 1)
    layer = layers.BatchNorm2d(5)
    layer.running_mean.fill_(100.0)
    (site,) = probe(layer, [x], [NormCollector(budget=8 * 5 * 64)])["batch_norm"].values()
    assert site["batch_variance"] == pytest.approx(x.double().var((0, 2, 3), correction=0).tolist(), rel=1e-4)


def test_measuring_without_a_budget_leaves_what_was_kept():
    layer, (x,) = layers.BatchNorm1d(5), batches((8, 5), count=1)
    layer(x)
    kept = layer.statistics.mean
    probe(layer, [x + 1], [NormCollector()])
    assert layer.statistics.mean is kept
    assert layer.statistics.request is None


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = layers.BatchNorm1d(5)

    def forward(self, x):
        assert self.norm.statistics.request is not None
        assert copy.deepcopy(self.norm).statistics.request is None
        self.norm(x)
        raise ArithmeticError


def test_a_request_ends_with_its_forward():
    model = Fails()
    observer = Observer(model, [NormCollector()])
    observer.attach()
    with pytest.raises(ArithmeticError):
        model(torch.randn(8, 5))
    assert model.norm.statistics.request is None
    observer.detach()
    (site,) = observer.read()["batch_norm"].values()
    assert site["batches"] == 1


def test_no_input_is_kept_alive():
    model = nn.Sequential(nn.Linear(5, 5), layers.BatchNorm1d(5))
    observer = Observer(model, [NormCollector(), NormCollector(8)])
    observer.attach()
    x = torch.randn(8, 5, requires_grad=True)
    inner = x * 1
    model(inner).sum().backward()
    dead = weakref.ref(inner)
    del inner
    assert dead() is None
    observer.detach()


class Within(nn.Module):
    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x):
        with torch.device("cpu"):
            return self.inner(x)


@pytest.mark.parametrize("budget", [None, 16])
def test_other_modes_at_the_same_time(budget):
    """`torch.device` as a context is a mode of its own, which hides nothing."""
    own, theirs = pair((8, 5, 7))
    data = batches((8, 5, 7))
    own, theirs = (Within(one, layers.GroupNorm(1, 5)) for one in (own, theirs))
    with torch.device("cpu"):
        found = probe(own, data, [NormCollector(budget), UnitCollector()])
        expected = probe(theirs, data, [NormCollector(budget), UnitCollector()])
    assert_same_figures(found["batch_norm"], expected["batch_norm"], 1e-4)
    assert list(found["units"]) == list(expected["units"])
    assert "inner.1:group_norm" in found["units"]


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_backend_is_seen(reads, backend):
    own, theirs = pair((8, 5, 7))
    own.backend = backend
    data = batches((8, 5, 7))
    found = probe(own, data, [NormCollector()])["batch_norm"]
    assert reads == []
    assert_same_figures(found, probe(theirs, data, [NormCollector()])["batch_norm"])


def test_activation_and_residual_follow():
    layer = layers.BatchNorm1d(5, activation="relu")
    x, residual = torch.randn(2, 8, 5).unbind(0)
    expected = copy.deepcopy(layer)(x, residual)
    for budget in (None, 16):
        observer = Observer(layer, [NormCollector(budget)])
        observer.attach()
        torch.testing.assert_close(layer(x, residual), expected)
        observer.detach()


@pytest.mark.parametrize("budget", [None, 16])
def test_refused_as_ever(budget):
    observer = Observer(layer := layers.BatchNorm1d(5), [NormCollector(budget)])
    observer.attach()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 5))
    with pytest.raises(RuntimeError, match="elements"):
        layer(torch.randn(4, 6))
    observer.detach()


def test_a_whole_check():
    report = normdoctor.check(net(layers), torch.randn(8, 3, 12, 12), data=[torch.randn(8, 3, 12, 12)] * 3)
    expected = normdoctor.check(net(nn), torch.randn(8, 3, 12, 12), data=[torch.randn(8, 3, 12, 12)] * 3)
    assert {one.code for one in report.findings} == {one.code for one in expected.findings}


@pytest.mark.parametrize("budget", [None, 16])
def test_no_value_is_waited_for(budget):
    """No more values are read than unwatched: on a CPU a layer looks at some of its own accord."""
    model = net(layers).to(memory_format=torch.channels_last)
    x = torch.randn(16, 3, 12, 12).to(memory_format=torch.channels_last)
    observer = Observer(model, [NormCollector(budget)])

    def waits():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            model(x).sum().backward()
        return sum(one.count for one in seen.key_averages() if one.key == "aten::_local_scalar_dense")

    unwatched = waits()
    observer.attach()
    assert waits() <= unwatched
    observer.detach()
    assert len(observer.read()["batch_norm"]) == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
@pytest.mark.parametrize("budget", [None, 2**10])
def test_nobody_waits_for_the_device(budget):
    model = net(layers).cuda()
    observer = Observer(model, [NormCollector(budget)])
    x = torch.randn(16, 3, 48, 48, device="cuda", requires_grad=True)
    model(x).sum().backward()
    observer.attach()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            model(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    observer.detach()
    assert len(observer.read()["batch_norm"]) == 2
