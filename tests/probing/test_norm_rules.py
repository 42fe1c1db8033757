"""Faults of normalization by batches, planted in nets of several styles, and the same nets in health."""

import copy
import functools
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import normdoctor

HERE = runpy.run_path(str(Path(__file__).parents[1] / "models" / "norm_nets.py"))
NETS, Dense, OwnNorm, Sequence, batches, logits, made = (
    HERE[name] for name in "NETS Dense OwnNorm Sequence batches logits made".split()
)

RULES = ("ND701", "ND702", "ND703", "ND704", "ND705", "ND707", "ND708")


nets = pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)


def trained(build, steps=120):
    return copy.deepcopy(_trained(build, steps))


@functools.cache
def _trained(build, steps, size=64):
    model = made(build)
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(steps):
        (x,) = batches(build, 1, size, seed=int(torch.randint(10**6, (), generator=generator)))
        loss = F.cross_entropy(logits(model(x)), (x.flatten(1).mean(1) > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def found(model, data, select=RULES):
    report = normdoctor.check(
        model, data[0] if isinstance(data, list) else next(iter(data)), data=data, select=select
    )
    assert not report.problems, report
    skipped = [result for result in report.skipped if result.code in select]
    assert not skipped, skipped
    return report.findings


def where(findings, code):
    return {path for finding in findings if finding.code == code for path in finding.modules}


def set_norm(model, place, **changes):
    module = model.get_submodule(place)
    for name, change in changes.items():
        tensor = getattr(module, name)
        tensor.copy_(change(tensor))


@nets
@pytest.mark.parametrize("steps", [0, 20, 120])
@pytest.mark.parametrize("training", [True, False])
def test_healthy(build, steps, training):
    model = trained(build, steps).train(training)
    assert [f"{finding.code} {finding.message}" for finding in found(model, batches(build))] == []


@nets
def test_small_batches(build):
    model, norm = made(build), build.places[-1]
    findings = found(model, batches(build, 8, 4))
    assert norm in where(findings, "ND701")
    (last,) = [one for one in findings if one.code == "ND701" and norm in one.modules]
    assert last.severity == "error"
    assert last.evidence["n_eff"] == pytest.approx(4, rel=0.05)
    assert last.evidence["passes"] == 31
    assert "a batch of 31 would pass" in last.message
    assert {one.code for one in findings} == {"ND701"}
    (stated,) = [
        finding
        for finding in normdoctor.check(
            model, batches(build)[0], data=batches(build), batch_size=16, select="ND701"
        ).findings
        if norm in finding.modules
    ]
    assert stated.severity == "warning"
    assert stated.evidence["n_eff"] == pytest.approx(16, rel=0.05)


@nets
def test_small_batches_of_eval_and_of_made_up_data_pass(build):
    model, data = made(build), batches(build, 8, 4)
    assert not found(model.eval(), data)
    made_up = normdoctor.check(model.train(), data[0], data="synthetic", select="ND701")
    assert not made_up.findings


@nets
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_stale_statistics(build, place, training):
    model = trained(build).train(training)
    with torch.no_grad():
        set_norm(model, build.places[place], running_mean=lambda m: m + 3.0, running_var=lambda v: v * 9)
    findings = found(model, batches(build))
    assert where(findings, "ND703") == {build.places[place]}
    assert where(findings, "ND702") == {build.places[place]}
    assert {finding.code for finding in findings} == {"ND702", "ND703"}
    normdoctor.recalibrate(model, batches(build))
    assert not found(model, batches(build))


@nets
def test_momentum_too_small_for_the_training(build):
    model = made(build)
    modules = [model.get_submodule(path) for path in build.places]
    if isinstance(modules[0], OwnNorm):
        pytest.skip("its momentum is written into the call, and it counts no batches")
    for module in modules:
        module.momentum = 1e-3
    with torch.no_grad():
        for x in batches(build, 150, 32):
            model(x)
    assert where(found(model, batches(build)), "ND703") >= {build.places[0]}


@nets
@pytest.mark.parametrize("place", [0, 1, 2])
def test_weights_that_changed_after_the_statistics(build, place):
    model = trained(build)
    weights = [p for n, p in model.named_parameters() if p.dim() > 1 and "rnn" not in n]
    if build is Sequence and place == 2:
        weights = [None, None, model.rnn.weight_ih_l0]
    with torch.no_grad():
        weights[place].mul_(5.0)
    assert build.places[place] in where(found(model, batches(build)), "ND703")


@nets
def test_eps_dominates(build):
    model = made(build)
    model.get_submodule(build.places[1]).eps = 1e4
    assert where(found(model, batches(build)), "ND704") == {build.places[1]}
    tiny = [x * 1e-5 for x in batches(build)]
    assert where(found(made(build), tiny), "ND704") == {build.places[0]}


@nets
@pytest.mark.parametrize("place", [0, 1, 2])
def test_batch_statistics_in_eval(build, place):
    model = trained(build)
    module = model.get_submodule(build.places[place])
    if isinstance(module, OwnNorm):
        module.track = False
    else:
        module.track_running_stats, module.running_mean, module.running_var = False, None, None
    findings = found(model, batches(build))
    assert where(findings, "ND705") == {build.places[place]}
    assert where(found(model.eval(), batches(build)), "ND705") == {build.places[place]}


class Hidden(nn.Module):
    """A BatchNorm that `eval()` does not reach."""

    def __init__(self, channels):
        super().__init__()
        self.held = [nn.BatchNorm1d(channels)]

    def forward(self, x):
        return self.held[0](x.flatten(2) if x.dim() > 2 else x).reshape(x.shape)


class ByHand(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()


class SoftmaxOverBatch(nn.Module):
    def forward(self, x):
        return x * x.softmax(0)


class AttentionOverBatch(nn.Module):
    """A softmax over the samples in a hand-written attention."""

    def forward(self, x):
        flat = x.flatten(1)
        return x + (F.softmax(flat @ flat.t() / flat.shape[1], dim=-1) @ flat).reshape(x.shape)


class ForcedTraining(nn.BatchNorm1d):
    def forward(self, x):
        flat = x.flatten(2) if x.dim() > 2 else x
        return F.batch_norm(flat, self.running_mean, self.running_var, training=True).reshape(x.shape)


@nets
@pytest.mark.parametrize("fault", ["hidden", "by hand", "softmax", "attention", "forced"])
def test_dependence_on_the_batch_of_every_kind(build, fault):
    model = trained(build, 20)
    path = build.places[0]
    channels = model.get_submodule(path).running_mean.numel()
    put = {
        "hidden": lambda: Hidden(channels),
        "by hand": ByHand,
        "softmax": SoftmaxOverBatch,
        "attention": AttentionOverBatch,
        "forced": lambda: ForcedTraining(channels),
    }[fault]()
    parent, _, name = path.rpartition(".")
    holder = model.get_submodule(parent)
    if isinstance(holder, nn.ModuleDict | nn.ModuleList | nn.Sequential) and name.isdigit():
        holder[int(name)] = put
    elif isinstance(holder, nn.ModuleDict):
        holder[name] = put
    else:
        setattr(holder, name, put)
    findings = found(model, batches(build))
    assert where(findings, "ND705") == {path}
    assert [finding.severity for finding in findings if finding.code == "ND705"] == ["error"]


def test_what_is_no_dependence_on_the_batch():
    class Similarity(nn.Module):
        """One output for each pair of samples, as in contrastive learning."""

        def forward(self, x):
            x = F.normalize(x, dim=-1)
            return x @ x.t()

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x, adjacency):
            return adjacency @ self.fc(x)

    class Nodes(nn.Module):
        """A graph that the model holds itself: another number of nodes does not fit."""

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)
            self.register_buffer("adjacency", torch.rand(6, 6))

        def forward(self, x):
            return self.adjacency @ self.fc(x)

    class Noisy(nn.Module):
        """Random in eval mode too, and another time at each call."""

        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, x):
            return x + torch.randn(x.shape, generator=self.generator)

    class Sampled(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    cases = [
        (Similarity(), [torch.randn(6, 8)] * 2),
        (Nodes(), [torch.randn(6, 8), torch.randn(6, 8)]),
        (nn.LSTM(8, 8), [torch.randn(6, 4, 8)] * 2),
        (nn.TransformerEncoderLayer(8, 2), [torch.randn(6, 4, 8)] * 2),
        (nn.TransformerEncoderLayer(8, 2, batch_first=True), [torch.randn(6, 4, 8), torch.randn(6, 4, 8)]),
        (Noisy(), [torch.randn(6, 8)] * 2),
        (Sampled(), [torch.randn(6, 8), torch.randn(6, 8)]),
        (nn.Linear(8, 8), [torch.randn(1, 8)]),
    ]
    for model, data in cases:
        assert not found(model, data, ("ND705",)), type(model)
    adjacency = torch.rand(6, 6)
    pairs = [(torch.randn(6, 8), adjacency)]
    assert not normdoctor.check(Graph(), pairs[0], data=pairs, select="ND705").findings


def test_one_batch_is_enough_for_an_exchange():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False))
    for size in (2, 3, 8):
        assert where(found(model, [torch.randn(size, 8)], ("ND705",)), "ND705") == {"1"}


@nets
def test_last_batch_of_one(build):
    model = made(build)
    x = torch.cat(batches(build, 3, 11))
    targets = torch.zeros(len(x), dtype=torch.long)
    for data in (DataLoader(x, 16), DataLoader(TensorDataset(x, targets), 16), [x[:16], x[16:32], x[32:]]):
        batch = next(iter(data))
        inputs = batch if isinstance(batch, torch.Tensor) else batch[0]
        report = normdoctor.check(model, inputs, data=data, select="ND707")
        lone = build.places[0] if build is Dense else build.places[2]
        assert where(report.findings, "ND707") == {lone}
        assert report.findings[0].severity == "error"
    for data in (DataLoader(x, 16, drop_last=True), DataLoader(x, 11), DataLoader(x[:32], 16)):
        assert not found(model, data, ("ND707",))
    assert not found(model.eval(), DataLoader(x, 16), ("ND707",))


def test_a_last_batch_that_is_not_read_is_counted():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    loader = DataLoader(torch.randn(65, 4), 8)
    (finding,) = normdoctor.check(model, torch.randn(8, 4), data=loader, batches=2, select="ND707").findings
    assert finding.message.startswith("65 samples in batches of 8 leave a last batch of one sample")


@nets
def test_sorted_batches(build):
    model = made(build)
    level = torch.linspace(-1, 1, 8).repeat_interleave(32).reshape(-1, *[1] * len(build.shape))
    x = torch.cat(batches(build, 8, 32)) + level
    findings = found(model, list(x.split(32)), ("ND708",))
    assert where(findings, "ND708") == {build.places[0]}
    mixed = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    assert not found(model, list(mixed.split(32)), ("ND708",))
    assert not found(model, list(x.split(32))[:3], ("ND708",)), "three batches say too little"


@pytest.mark.parametrize("seed", range(8))
def test_chance_is_no_order(seed):
    torch.manual_seed(seed)
    data = [torch.randn(4, 16) * torch.rand(4, 1) for _ in range(4)]
    assert not found(nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64)), data, ("ND708",))
