"""ND601 on measurements written by hand, and its page."""

import linecache

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.facts import Location
from normdoctor.graph import Graph
from normdoctor.rules.measured.dead_units import DeadUnits
from normdoctor.testing import FactsBuilder, check_rule_examples, run_rule


def graph(**figures):
    build = FactsBuilder()
    x = build.input(8, 4)
    fc = build.layer("fc", "Linear", x, shape=(8, 64), weight=(64, 4))
    act = build.layer("act", "ReLU", fc, shape=(8, 64))
    source, dead = figures.pop("source", "data"), figures.pop("dead", 0)
    site = {
        "module": "act", "call": 0, "kind": "relu", "role": "activation", "units": 64,
        "active": [0.0] * dead + [0.5] * (64 - dead), "observations": 2000, "batches": 4,
    } | figures  # fmt: skip
    measurements = {"units": {"act:relu": site}, "run": {"source": source}}
    facts = msgspec.structs.replace(build.facts(act), measurements=measurements)
    return Graph(facts)


@pytest.mark.parametrize(
    ("figures", "severity"),
    [
        ({"dead": 0}, None),
        ({"dead": 6}, None),
        ({"dead": 7}, "warning"),
        ({"dead": 25}, "warning"),
        ({"dead": 26}, "error"),
        ({"dead": 64}, None),
        ({"dead": 63}, "error"),
        ({"dead": 63, "source": "watch"}, "error"),
        ({"dead": 63, "source": "synthetic"}, "warning"),
        ({"dead": 63, "observations": 999}, None),
        ({"dead": 63, "observations": 1000}, "error"),
        ({"dead": 63, "batches": 1}, None),
        ({"dead": 63, "batches": 2}, "error"),
    ],
)
def test_thresholds(figures, severity):
    found = run_rule(DeadUnits, graph(**figures))
    assert [finding.severity.value for finding in found] == ([severity] if severity else [])


def test_message_gives_the_figures_and_the_bound():
    (finding,) = run_rule(DeadUnits, graph(dead=16, observations=3000))
    assert finding.message == (
        "16 of 64 units of {modules} (25%) were never active in 3000 observations over 4 batches "
        "(rate below 0.001 at 95 %)"
    )
    assert finding.evidence["rate_below"] == 0.001
    assert finding.location == Location("model.py", 2)
    assert "synthetic batches" in run_rule(DeadUnits, graph(dead=16, source="synthetic"))[0].message


@pytest.mark.parametrize(("dead", "confidence"), [(25, "low"), (26, "high")])
def test_a_smaller_share_of_synthetic_data_says_little(dead, confidence):
    (finding,) = run_rule(DeadUnits, graph(dead=dead, source="synthetic"))
    assert finding.confidence == confidence


class Squeeze(nn.Module):
    """A squeeze-and-excitation whose units are on or off whatever comes, as at the start."""

    def __init__(self, gated):
        super().__init__()
        self.conv, self.gated = nn.Conv2d(3, 32, 3), gated
        self.down, self.up = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        with torch.no_grad():
            self.down.bias[:8] = -100.0

    def forward(self, x):
        x = F.relu(self.conv(x))
        y = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * y.sigmoid() if self.gated else F.softplus(y) + x


@pytest.mark.parametrize("gated", [True, False])
def test_what_a_gate_is_computed_from_is_silent(gated):
    data = [torch.randn(600, 3, 5, 5) for _ in range(2)]
    found = normdoctor.check(Squeeze(gated), data[0], data=data, select="ND601").findings
    assert len(found) == (0 if gated else 1)


def test_options():
    assert not run_rule(DeadUnits, graph(dead=2), warning=0.01)
    assert run_rule(DeadUnits, graph(dead=2), warning=0.01, units=2)
    assert not run_rule(DeadUnits, graph(dead=63, batches=2), batches=3)


def test_a_site_that_was_not_recorded_is_still_reported():
    (finding,) = run_rule(DeadUnits, graph(dead=63, module="gone", call=3))
    assert finding.modules == ("gone",)
    assert finding.location is None


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)

    def forward(self, x):
        x = F.relu(self.first(x))
        return torch.relu(self.second(x))  # dead


def test_functional_calls_are_found_at_their_line():
    model = Twice()
    with torch.no_grad():
        model.second.bias[:15] = -1000.0
    data = [torch.randn(600, 8) for _ in range(2)]
    (finding,) = normdoctor.check(model, data[0], data=data, select="ND601").findings
    assert "# dead" in linecache.getline(finding.location.file, finding.location.line)
    assert finding.message.startswith("15 of 16 units")


def test_the_page():
    check_rule_examples(DeadUnits)
