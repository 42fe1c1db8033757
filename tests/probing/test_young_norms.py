"""Running statistics that still are initial values: one finding says so, and nothing behind is judged."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor
from normdoctor.findings import Finding

NORM = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "models" / "norm_nets.py")))


class Modules(nn.Module):
    """Eight narrow layers: with initial statistics next to nothing comes through."""

    def __init__(self, momentum: float | None = 0.01) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(8):
            layers += [nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16, momentum=momentum), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(16, 4))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Functions(Modules):
    """The same by functions; nothing counts batches."""

    def forward(self, x: Tensor) -> Tensor:
        for i in range(0, 24, 3):
            norm = self.net[i + 1]
            x = F.linear(x, self.net[i].weight)
            x = F.batch_norm(
                x,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                self.training,
                norm.momentum or 0.1,
                norm.eps,
            )
            x = torch.relu(x)
        result: Tensor = self.net[24](x)
        return result


def data() -> list[Tensor]:
    return list(torch.randn(4 * 256, 16, generator=torch.Generator().manual_seed(1)).split(256))


def trained(build: Any, steps: int, **config: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = build(**config)
    with torch.no_grad():
        for step in range(steps):
            model(data()[step % 4])
    return model


def findings_of(model: nn.Module, batches: list[Tensor], *select: str) -> list[Finding]:
    report = normdoctor.check(model, batches[0], data=batches, select=list(select or ("ND6", "ND7", "ND8")))
    assert not report.problems
    return list(report.findings)


def findings(model: nn.Module, *select: str) -> list[Finding]:
    return findings_of(model, data(), *select)


def young(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.code == "ND703" and one.severity == "info"]


@pytest.mark.parametrize("build", [Modules, Functions])
@pytest.mark.parametrize("steps", [0, 20])
def test_one_finding_and_no_other(build: Any, steps: int) -> None:
    found = findings(trained(build, steps).eval())
    assert [(one.code, str(one.severity)) for one in found] == [("ND703", "info")]
    assert found[0].modules[0] in ("net.1", "")
    shares = found[0].evidence["initial"].values()
    assert max(shares) == pytest.approx(0.99**steps, abs=0.05)


def test_the_figures_stand_in_the_message() -> None:
    (found,) = findings(trained(Modules, 20).eval())
    assert "after 20 batches still hold 82% of their initial values" in found.message
    assert "7 further norms" in found.message
    assert "recalibrate" in (found.help or "")


def test_rules_that_are_selected_alone_are_silent_as_well() -> None:
    model = trained(Modules, 20).eval()
    for code in ("ND601", "ND602", "ND605", "ND606", "ND607", "ND614"):
        assert findings(model, code) == []


def test_train_mode_is_judged_as_ever() -> None:
    model = trained(Modules, 20)
    with torch.no_grad():
        model.net[4].bias[:8] = -10.0  # type: ignore[union-attr, index, operator]
    found = findings(model.train())
    assert "ND601" in {one.code for one in found}
    assert not young(found)


def test_what_stands_in_front_of_the_first_young_norm_is_judged() -> None:
    class Headed(Modules):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.relu(self.first(x)))

    model = trained(Headed, 20).eval()
    with torch.no_grad():
        model.first.bias[:8] = -100.0  # type: ignore[union-attr, index, operator]
    found = findings(model)
    assert {one.code for one in found if one.severity != "info"} == {"ND601"}
    assert young(found)


@pytest.mark.parametrize(("momentum", "steps"), [(None, 1), (0.1, 30), (0.01, 250)])
def test_old_enough(momentum: float | None, steps: int) -> None:
    assert not young(findings(trained(Modules, steps, momentum=momentum).eval()))


def test_a_momentum_too_small_for_the_training_is_a_warning_without_consequences() -> None:
    found = findings(trained(Modules, 120).eval())
    assert [(one.code, str(one.severity)) for one in found] == [("ND702", "warning"), ("ND703", "warning")]


@pytest.mark.parametrize("build", NORM.NETS)
def test_young_norms_that_hand_on_what_they_should_hide_nothing(build: Any) -> None:
    torch.manual_seed(0)
    assert not findings_of(build().eval(), NORM.batches(build))


def test_cumulative_statistics_of_no_batch_are_young() -> None:
    assert young(findings(trained(Modules, 0, momentum=None).eval()))


@pytest.mark.parametrize("build", NORM.NETS)
@pytest.mark.parametrize("counted", [0, 3])
def test_real_statistics_beside_a_low_counter_are_not_young(build: Any, counted: int) -> None:
    """Those of a checkpoint without counters, and those that were taken anew after a few steps."""
    torch.manual_seed(0)
    model, batches = build(), NORM.batches(build)
    normdoctor.recalibrate(model, batches)
    for name, value in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            value.fill_(counted)
    assert findings_of(model.eval(), batches) == []
