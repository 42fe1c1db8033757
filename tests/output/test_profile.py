"""The signal by depth: as data, as a chart, and where it is shown."""

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.output import render
from normdoctor.output.profile import bar, chart
from normdoctor.output.style import Style
from normdoctor.report import Report
from normdoctor.views.profile import ProfilePoint


def point(depth, variance, role="linear", **fields):
    known = {"site": f"{depth}:{role}", "module": str(depth), "kind": role, "mean": 0.5, "between": variance}
    return ProfilePoint(role=role, depth=depth, variance=variance, **(known | fields))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def test_the_figures_are_those_of_the_values():
    model, data = net(), [torch.randn(64, 8) for _ in range(3)]
    with torch.no_grad():
        values = torch.cat([model[0](x) for x in data])
    profile = normdoctor.check(model, data[0], data=data).profile()
    assert [(one["site"], one["depth"]) for one in profile] == [
        ("0:linear", 0), ("1:batch_norm", 1), ("2:relu", 2), ("3:linear", 3),
    ]  # fmt: skip
    first = profile[0]
    assert first["target"] == "Sequential"
    assert first["mean"] == pytest.approx(values.mean().item(), abs=1e-6)
    assert first["variance"] == pytest.approx(values.var(correction=0).item(), rel=1e-4)
    assert first["between"] == pytest.approx(values.var(0, correction=0).mean().item(), rel=1e-4)
    assert first["gradient_rms"] is None


def test_a_watch_adds_gradients():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(64, 8)
    with normdoctor.watch(model, every=1, on_finding="ignore") as watch:
        for _ in range(2):
            loss = model(x).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    found = {one["site"]: one["gradient_rms"] for one in watch.report().profile()}
    assert found["0:linear"] == pytest.approx(model[0].weight.grad.pow(2).mean().sqrt().item(), rel=1e-4)
    assert found["2:relu"] is None
    assert found["1:batch_norm"] is not None


def test_nothing_was_measured():
    report = normdoctor.check(net(), torch.randn(4, 8))
    assert report.profile() == []
    assert "signal by depth" not in render(report, "full", Style(verbosity=1))
    assert chart([], Style()) == ""


def test_the_chart():
    points = [point(0, 1.0), point(1, 0.5, role="activation"), point(2, 1e-5, gradient_rms=0.25)]
    assert chart(points, Style(unicode=False)).splitlines() == [
        "layer     mean  variance  gradient  variance, log scale",
        "--------  ----  --------  --------  --------------------",
        "0:linear   0.5         1            ####################",
        "2:linear   0.5     1e-05      0.25  ##########",
    ]
    assert "1:activation" in chart(points[1:2], Style())
    assert "\u2588" in chart(points, Style())


@pytest.mark.parametrize(
    ("value", "top", "length"),
    [(1.0, 1.0, 20), (0.1, 1.0, 18), (1e-9, 1.0, 2), (1e-12, 1.0, 0), (0.0, 0.0, 0)],
)
def test_bars(value, top, length):
    assert bar(value, top, "#") == ("#" * length or ".")


def test_it_is_shown_with_v():
    data = [torch.randn(64, 8) for _ in range(2)]
    report = normdoctor.check(net(), data[0], data=data)
    assert isinstance(report, Report)
    assert "signal by depth:\nlayer" in render(report, "full", Style(verbosity=1))
    assert "signal by depth" not in render(report, "full", Style())
