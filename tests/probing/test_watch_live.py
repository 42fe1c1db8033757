"""Findings while a training runs: raised once, confirmed, cleared; the history; memory."""

import gc
import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normdoctor
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.probing.live import Alerts, StoppedError
from normdoctor.probing.monitor import NormDoctorWarning
from normdoctor.probing.series import KEPT, RECENT, Series, Thinned


def net(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 2),
    )


def train(model, w, steps, optimizer=None, before=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        x = torch.randn(64, 8)
        loss = F.cross_entropy(model(x), (x.sum(1) > 0).long())
        if before is not None:
            loss = before(step, loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        w.step(loss)


def broken(at):
    return lambda step, loss: loss * float("nan") if step == at else loss


@pytest.mark.parametrize("every", [1, 3])
def test_stop_names_the_finding(every):
    model = net()
    with pytest.raises(StoppedError, match=r"step \d+: ND\d03 .*|ND807|ND608") as stopped:  # noqa: SIM117
        with normdoctor.watch(model, every=every, on_finding="stop") as w:
            train(model, w, 40, before=broken(10))
    assert stopped.value.finding.code in ("ND807", "ND608")
    assert w.steps < 20
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_finding_is_warned_of_once_while_the_training_runs():
    model = net()
    with torch.no_grad():
        model[3].bias[:12] = -1000.0
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with normdoctor.watch(model, every=1) as w:
            train(model, w, 60)
            told = [str(one.message) for one in caught if one.category is NormDoctorWarning]
    final = [str(one.message) for one in caught if one.category is NormDoctorWarning]
    assert len([text for text in told if text.startswith("ND601")]) == 1
    assert final == told
    (alert,) = [alert for alert in w.alerts if alert.finding.code == "ND601"]
    assert alert.finding.modules == ("4",)
    assert alert.raised is not None
    assert alert.raised > alert.step
    assert alert.cleared is None


def test_a_finding_is_cleared_when_it_heals():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with normdoctor.watch(model, every=1, on_finding=lambda finding: None) as w:
        train(model, w, 20, optimizer)
        assert [alert.finding.code for alert in w.alerts if alert.cleared is None] == ["ND805"]
        optimizer.param_groups[0]["lr"] = 0.1
        train(model, w, 200, optimizer)
    (alert,) = [alert for alert in w.alerts if alert.finding.code == "ND805"]
    assert alert.cleared is not None
    assert "ND805" not in {finding.code for finding in w.report().findings}


def finding(code, *modules, severity=Severity.WARNING):
    return Finding(
        code=code, name="a-name", severity=severity, confidence=Confidence.HIGH, message="m", modules=modules
    )


def test_consequences_are_listed_under_their_cause():
    alerts = Alerts()
    cause, effects = finding("ND602", "4"), [finding("ND803", "0"), finding("ND801", "0")]
    assert alerts.consider([*effects, cause], 3) == []  # on trial
    (alert,) = alerts.consider([*effects, cause], 6)
    assert alert.finding == cause
    assert {one.code for one in alert.consequences} == {"ND803", "ND801"}
    assert alerts.consider([*effects, cause], 12) == []  # once
    assert alerts.consider([], 24) == []
    assert alert.cleared is None
    alerts.consider([], 48)
    assert alert.cleared == 48
    assert alerts.consider([cause], 60) == []
    assert len(alerts.consider([cause], 70)) == 1  # it came back


def test_more_places_of_one_rule_are_one_alert():
    alerts = Alerts()
    found = [finding("ND601", "1"), finding("ND601", "4"), finding("ND801", "0", severity=Severity.INFO)]
    alerts.consider(found, 3)
    (alert,) = alerts.consider(found, 6)
    assert alert.finding.modules == ("1",)
    assert [one.modules for one in alert.consequences] == [("4",)]


def test_a_passing_finding_is_not_raised_and_bad_numbers_are_at_once():
    alerts = Alerts()
    alerts.consider([finding("ND601", "1")], 3)
    assert alerts.consider([], 6) == []
    assert alerts.alerts == []
    (alert,) = alerts.consider([finding("ND807", "1"), finding("ND608", "2")], 7)
    assert alert.finding.code == "ND608"
    assert [one.code for one in alert.consequences] == ["ND807"]


def test_bad_weights_make_bad_values():
    alerts = Alerts()
    (alert,) = alerts.consider([finding("ND807", "1")], 7)
    assert alerts.consider([finding("ND807", "1"), finding("ND608", "2")], 8) == []
    assert [one.code for one in alert.consequences] == ["ND608"]


def test_series_keeps_the_last_looks_and_the_whole_run():
    series = Series(2, 3, torch.device("cpu"))
    for step in range(1000):
        series.add(step, torch.full((2, 3), float(step)))
    steps, tables = series.last(series.recent)
    assert steps == list(range(1000 - RECENT, 1000))
    assert tables[:, 0, 0].tolist() == [float(step) for step in steps]
    steps, tables = series.whole(series.kept)
    assert steps[0] == 0
    assert KEPT // 2 <= len(steps) <= KEPT
    assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    assert tables[:, 1, 2].tolist() == [float(step) for step in steps]


def test_thinned_numbers():
    line = Thinned()
    for step in range(1000):
        line.add(step, step / 2)
    assert KEPT // 2 <= len(line.points) <= KEPT
    assert all(value == step / 2 for step, value in line.points)


def test_history():
    model = net()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        train(model, w, 100)
        history = w.history()
    assert len(history["losses"]["loss"]["value"]) <= KEPT
    norms = history["gradients"]["0.weight"]["gradient_norm"]
    assert KEPT // 2 <= len(norms) <= KEPT
    assert all(value > 0 for _, value in norms)
    assert {"std", "mean"} <= set(history["units"]["2:relu"])


def held() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        if (
            type(one) in (torch.Tensor, nn.Parameter)
            and one.device.type == "cpu"
            and one.layout == torch.strided
        ):
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(found.values())


def test_memory_is_independent_of_steps():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sizes = []
    with normdoctor.watch(model, every=4, on_finding=lambda finding: None) as w:
        for steps in (1200, 10_000 - 1200):
            train(model, w, steps, optimizer)
            w.measurements()
            optimizer.zero_grad()
            sizes.append(held())
    assert w.steps == 10_000
    assert sizes[1] <= sizes[0] + 65536
    points = [line for need in w.history().values() for of in need.values() for line in of.values()]
    assert max(len(line) for line in points) <= KEPT


def test_memory_of_a_watch_is_small():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), nn.GELU()) for _ in range(24))
    )
    before = held()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(torch.randn(8, 256)).sum().backward()
            w.step()
        model.zero_grad()
        used = held() - before
    parameters = sum(p.numel() * 4 for p in model.parameters())
    assert used <= 0.02 * parameters + 16 * 2**20


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a value."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        self.count += any(
            part in name for part in ("_local_scalar_dense", "nonzero", "equal.default", "unique")
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("on_finding", ["ignore", "warn"])
def test_no_synchronization(on_finding):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=True)
    reads = Reads()
    with normdoctor.watch(model, optimizer, every=1, on_finding=on_finding) as w:
        train(model, w, 3, optimizer)
        with reads:
            train(model, w, 12, optimizer)
    assert reads.count == 0
