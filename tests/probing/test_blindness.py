"""Where hooks cannot fire it is said, and what was not seen does not pass: no silent zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.errors import UsageError

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        model[1].bias[:12] = -1000.0  # dead units: to be found wherever something is seen
    return model


class ScriptedPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.part = torch.jit.script(nn.Sequential(nn.BatchNorm1d(16), nn.ReLU()))

    def forward(self, x):
        return self.last(self.part(self.first(x)))


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return torch.func.vmap(lambda one: self.net(one.unsqueeze(0)).squeeze(0))(x)


def compiled_in_place():
    model = net()
    model.compile(backend="eager")
    model(X)  # compiled before anybody looks
    return model


def compiled_part():
    model = net()
    model[2].compile(backend="eager")
    model(X)
    return model


def compiled():
    model = torch.compile(net(), backend="eager")
    model(X)
    return model


SEEN = {
    "plain": net,
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "a compiled part": compiled_part,
    "exported": lambda: torch.export.export(net(), (X,)).module(),
    "traced by fx": lambda: torch.fx.symbolic_trace(net()),
}
UNSEEN = {
    "scripted": lambda: torch.jit.script(net()),
    "traced by jit": lambda: torch.jit.trace(net(), X),
    "vmap": lambda: Mapped().eval(),
}
RULES = ["ND601", "ND602", "ND605", "ND701"]


@pytest.fixture(autouse=True)
def no_compiled_code():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEEN)
def test_a_check_sees(kind):
    report = normdoctor.check(SEEN[kind](), X, data=[X, X, X, X] * 8, select=RULES)
    assert "ND601" in {finding.code for finding in report.findings}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNSEEN)
def test_a_check_says_that_it_saw_nothing(kind):
    report = normdoctor.check(UNSEEN[kind](), X, data=[X, X], select=RULES)
    assert report.counts() == {"skipped": len(RULES)}
    assert any(note.startswith("nothing is measured: ") for note in report.targets[0].notes)


def test_a_watch_says_that_it_saw_nothing():
    model = Mapped().eval()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(X).square().mean().backward()
            w.step()
    assert "units" not in w.measurements()
    report = w.report()
    assert {result.outcome for result in report.results if result.code in RULES} == {"skipped"}
    assert any(note.startswith("nothing is measured: ") for note in report.targets[0].notes)


@pytest.mark.filterwarnings("ignore")
def test_scripted_models_are_refused_and_scripted_parts_named():
    for kind in ("scripted", "traced by jit"):
        with pytest.raises(UsageError, match="a ScriptModule runs without Python"):
            normdoctor.watch(UNSEEN[kind]())
    model = ScriptedPart()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(X).square().mean().backward()
            w.step()
    assert "scripted, so not seen inside: part" in w.report().targets[0].notes
    report = normdoctor.check(ScriptedPart(), X, data=[X], select=RULES)
    assert "scripted, so not seen inside: part" in report.targets[0].notes


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_model_is_checked_by_its_modules():
    report = normdoctor.check(torch.jit.script(net()))
    assert "a ScriptModule: only its modules can be seen, not its forward" in report.targets[0].notes
