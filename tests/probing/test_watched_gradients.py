"""Faults of gradients and updates: planted in nets of several styles, found at the right layer."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor

HERE = runpy.run_path(str(Path(__file__).parents[1] / "models" / "deep_nets.py"))
AT, DEPTH, NETS, WIDTH, Blocks, Convolutional, Dead, Functional, Scale, Sequential, WithDeviation, data = (
    HERE[name]
    for name in (
        "AT DEPTH NETS WIDTH Blocks Convolutional Dead Functional Scale Sequential WithDeviation data"
    ).split()
)


each = pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__.lower())


def watched(model, steps=8, every=1, lr=1e-3, optimizer=torch.optim.Adam, prepare=lambda x: x, after=None):
    torch.manual_seed(1)
    chosen = optimizer(model.parameters(), lr=lr)
    with normdoctor.watch(model, chosen, every=every, on_finding="ignore") as w:
        for _ in range(steps):
            x, y = data()
            loss = F.cross_entropy(model(prepare(x)), y)
            chosen.zero_grad()
            loss.backward()
            chosen.step()
            if after is not None:
                after(model)
            chosen.zero_grad()  # before the watch is told
            w.step(loss)
    return w


def findings(w, code):
    return [finding for finding in w.report().findings if finding.code == code]


@each
def test_healthy_nets_are_silent(make):
    torch.manual_seed(0)
    model = make()
    for steps in (8, 20):
        report = watched(model, steps).report()
        assert not [(f.code, f.message) for f in report.findings if f.code >= "ND706"]


@each
@pytest.mark.parametrize("factor", [1e-7, 1e-12])
def test_vanishing(make, factor):
    torch.manual_seed(0)
    (finding,) = findings(watched(make(lambda: Scale(factor))), "ND801")
    first = finding.modules[0]
    assert make.path(0).startswith(first)
    assert finding.evidence["layers"] == AT + 1
    assert make.path(AT) in finding.modules


@each
def test_exploding_layer(make):
    torch.manual_seed(0)
    (finding,) = findings(watched(make(lambda: Scale(1e9)), lr=1e-6), "ND802")
    assert finding.modules[0] == make.path(AT)
    assert make.path(AT + 1) not in finding.modules or make is Functional


@each
def test_growing_gradient(make):
    torch.manual_seed(0)
    model = make()
    steps = iter(range(100))
    w = watched(model, 10, prepare=lambda x: x * (1e5 if next(steps) > 6 else 1), lr=1e-9)
    if make is Sequential or make is Functional:  # tanh saturates
        assert not findings(w, "ND802")
    elif make is Convolutional:
        (finding,) = findings(w, "ND802")
        assert "grown" in finding.message


def test_a_small_middle_is_no_vanishing():
    class Branch(nn.Module):
        """A LayerScale as ConvNeXt starts with."""

        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.gamma = nn.Parameter(torch.full((WIDTH,), 1e-6))

        def forward(self, x):
            return x + self.gamma * self.fc2(F.gelu(self.fc1(x)))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), *(Branch() for _ in range(6)), nn.Linear(WIDTH, 4))
    report = watched(model, optimizer=torch.optim.SGD).report()
    assert not [f for f in report.findings if f.code in ("ND801", "ND802", "ND803", "ND805")]


def test_a_branch_that_starts_at_zero_is_silent():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(WIDTH, WIDTH)
            self.norm = nn.BatchNorm1d(WIDTH)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x):
            return x + self.norm(self.fc(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), *(Branch() for _ in range(4)), nn.Linear(WIDTH, 4))
    report = watched(model).report()
    assert not [f for f in report.findings if f.severity != "info"]


@each
def test_zero_gradient(make):
    torch.manual_seed(0)
    found = findings(watched(make(Dead)), "ND803")
    paths = [path for finding in found for path in finding.modules]
    if make is Functional:
        assert len(found[0].evidence["parameters"]) == DEPTH  # without biases, all that follows is zero
    else:
        assert make.path(AT) in paths
        assert make.path(0) in paths
        assert make.path(AT + 2) not in paths


@each
def test_unused_parameters_and_experts_are_silent(make):
    torch.manual_seed(0)
    model = make()
    model.spare = nn.Linear(3, 3)
    model.experts = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    if isinstance(model, nn.Sequential):
        model = nn.ModuleDict({"net": make(), "spare": model.spare})
        model.forward = model["net"].forward
    assert not findings(watched(model), "ND803")


class ForgetfulNorm(nn.BatchNorm1d):
    """Its forward returns the activation of its input: the norm is never applied."""

    def __init__(self, features, activation=None):
        super().__init__(features)
        self.activation = activation or nn.ReLU()

    def forward(self, x):
        return self.activation(x)


@pytest.mark.parametrize("style", ["sequential", "attribute", "list", "block"])
def test_a_norm_whose_forward_does_not_use_it(style):
    class Attribute(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn, self.head = nn.Linear(WIDTH, 8), ForgetfulNorm(8), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.bn(self.fc(x)))

    class List(nn.Module):
        def __init__(self):
            super().__init__()
            self.fcs = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
            self.bns = nn.ModuleList([nn.BatchNorm1d(WIDTH), ForgetfulNorm(WIDTH)])
            self.head = nn.Linear(WIDTH, 4)

        def forward(self, x):
            for fc, bn in zip(self.fcs, self.bns, strict=True):
                x = x + bn(fc(x))
            return self.head(x)

    nets = {
        "sequential": lambda: nn.Sequential(nn.Linear(WIDTH, 8), ForgetfulNorm(8), nn.Linear(8, 4)),
        "attribute": Attribute,
        "list": List,
        "block": lambda: nn.Sequential(nn.Sequential(nn.Linear(WIDTH, 8), ForgetfulNorm(8)), nn.Linear(8, 4)),
    }
    expected = {"sequential": "1", "attribute": "bn", "list": "bns.1", "block": "0.1"}
    torch.manual_seed(0)
    (finding,) = findings(watched(nets[style]()), "ND803")
    assert finding.modules == (expected[style],)


@each
@pytest.mark.parametrize(("lr", "word"), [(3.0, "above"), (1e-9, "below")])
def test_update_ratio(make, lr, word):
    torch.manual_seed(0)
    found = findings(watched(make(), 10, lr=lr), "ND804")
    assert found
    assert all(word in finding.message and finding.severity == "info" for finding in found)


@each
def test_parameters_that_never_change(make):
    torch.manual_seed(0)
    model = make()
    name, chosen = [(n, p) for n, p in model.named_parameters() if p.dim() > 1][AT]
    value = chosen.detach().clone()

    def restore(_):
        with torch.no_grad():
            chosen.copy_(value)

    # What overwrites a weight after the step is seen at the next look, not within the step itself.
    class Overwriting(torch.optim.Adam):
        def step(self, closure=None):
            super().step(closure)
            restore(None)

    (finding,) = findings(watched(model, optimizer=Overwriting), "ND805")
    assert finding.evidence["parameters"] == [name]


@each
def test_rate_of_zero_and_bfloat16(make):
    torch.manual_seed(0)
    found = findings(watched(make(), lr=0.0), "ND805")
    assert found
    assert all("learning rate is 0" in finding.message for finding in found)
    torch.manual_seed(0)
    model = make().bfloat16()
    w = watched(model, lr=1e-7, optimizer=torch.optim.SGD, prepare=lambda x: x.bfloat16())
    found = findings(w, "ND805")
    assert found
    assert all("bfloat16 rounds" in finding.message for finding in found)


@each
@pytest.mark.parametrize("scaled", [False, True])
def test_underflow_in_half(make, scaled):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**20)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            x, _ = data()
            with torch.autocast("cpu", dtype=torch.float16):
                output = model(x)
            loss = 5e-6 * output.float().pow(2).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            w.step(loss)
    assert bool(findings(w, "ND806")) != scaled


@each
def test_zeros_of_other_causes_are_no_underflow(make):
    torch.manual_seed(0)
    model = make()

    def mostly_zero(x):
        x = x.clone()
        x[:, 2:] = 0
        return x

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            x, y = data()
            with torch.autocast("cpu", dtype=torch.float16):
                output = model(mostly_zero(x))
            F.cross_entropy(output.float(), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            w.step()
    assert not findings(w, "ND806")


@each
def test_gradient_that_is_not_finite(make):
    torch.manual_seed(0)

    def padded(x):
        x = x.clone()
        x[0] = 0
        return x

    model = make(WithDeviation)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    (finding,) = findings(watched(model, 4, prepare=padded), "ND807")
    (path,) = finding.modules
    assert path == ("blocks.4.norm" if make is Blocks else make.path(AT))
    assert finding.severity == "error"
    assert finding.evidence["step"] == 1


@each
def test_loss_that_is_not_finite(make):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for step in range(5):
            loss = model(data()[0]).pow(2).mean() * (float("inf") if step == 3 else 1)
            loss = loss - loss if step == 3 else loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    (finding,) = findings(w, "ND807")
    assert finding.evidence["step"] == 4
    assert "the gradients of all" in finding.message


def test_a_learning_rate_that_is_far_too_large_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    x = torch.randn(512, 20)
    y = (x[:, :3].sum(1) > 0).long()
    with normdoctor.watch(model, optimizer, every=5, on_finding="ignore") as w:
        for rows in torch.arange(512).split(32):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    (finding,) = findings(w, "ND807")
    assert "step 1 changed `4.weight` by" in finding.message
    assert "lower the learning rate" in finding.help


def test_a_step_that_the_scaler_skips_is_no_fault():
    torch.manual_seed(0)
    model = Sequential()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    scales = []
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(30):
            x, y = data()
            with torch.autocast("cpu", dtype=torch.float16):
                output = model(x)
            loss = F.cross_entropy(output.float(), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
            w.step(loss)
    assert len(set(scales)) > 3
    assert not [f for f in w.report().findings if f.code.startswith("ND8") and f.severity != "info"]
    norms = [n for n in w.measurements()["gradients"]["0.weight"]["norms"] if n is not None]
    assert 0 < max(norms) < 10  # unscaled


def test_exact_norms_and_ratios():
    torch.manual_seed(0)
    model = Convolutional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = {}
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(2):
            x, y = data()
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            for name, p in model.named_parameters():
                expected.setdefault(name, []).append((float(p.grad.norm()), float(p.detach().norm())))
            optimizer.step()
            w.step(loss)
    found = w.measurements()
    for name, p in model.named_parameters():
        assert found["gradients"][name]["norms"] == pytest.approx([g for g, _ in expected[name]], rel=1e-4)
        if p.numel() <= 1024:  # then the sample is all of it
            assert found["updates"][name]["ratios"] == pytest.approx(
                [0.1 * g / w for g, w in expected[name]],
                rel=5e-2,
                abs=3e-8,  # the rounding of float32
            )
    places = [found["gradients"][f"convs.{index}.weight"]["place"] for index in range(DEPTH)]
    assert places == sorted(places)


@pytest.mark.parametrize("memory", ["contiguous", "channels_last", "transposed", "sparse"])
def test_layouts_of_gradients(memory):
    torch.manual_seed(0)
    if memory == "sparse":
        model = nn.Sequential(nn.Embedding(100, 8, sparse=True), nn.Flatten(), nn.Linear(32, 4))
        inputs = torch.randint(100, (16, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    else:
        model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
        inputs = torch.randn(16, 4, 8, 8)
        if memory == "channels_last":
            model = model.to(memory_format=torch.channels_last)
            inputs = inputs.to(memory_format=torch.channels_last)
        if memory == "transposed":
            model[2].weight = nn.Parameter(torch.randn(8 * 36, 4).div(16).t())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            loss = F.cross_entropy(model(inputs), torch.randint(4, (16,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    assert not [f for f in w.report().findings if f.code in ("ND803", "ND805", "ND807")]
    assert all(one["seen"] >= 5 for one in w.measurements()["gradients"].values())


def by_hand(model, x, y):
    F.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
            p.grad = None


def closure(model, x, y, optimizer):
    def evaluate():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(evaluate)


@pytest.mark.parametrize("style", ["by hand", "closure", "two optimizers", "in the backward"])
def test_ways_to_step(style):
    torch.manual_seed(0)
    model = Blocks()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    halves = [torch.optim.SGD(parameters[::2], lr=0.1), torch.optim.Adam(parameters[1::2], lr=1e-3)]
    if style == "in the backward":
        each_own = {p: torch.optim.SGD([p], lr=0.1) for p in parameters}

        def step_now(p):
            each_own[p].step()
            each_own[p].zero_grad()

        for p in parameters:
            p.register_post_accumulate_grad_hook(step_now)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(8):
            x, y = data()
            if style == "by hand":
                by_hand(model, x, y)
            elif style == "closure":
                closure(model, x, y, optimizer)
            else:
                F.cross_entropy(model(x), y).backward()
                for one in halves if style == "two optimizers" else ():
                    one.step()
                    one.zero_grad()
            w.step()
    found = w.measurements()
    for figures in found["gradients"].values():
        assert figures["seen"] >= 6
        assert all(norm > 0 for norm in figures["norms"])
    assert all(figures["still"] == 0 for figures in found["updates"].values())
    moved = found["updates"]["head.weight"]["ratios"]
    assert all(ratio > 0 for ratio in moved)
    assert w.report().ok
