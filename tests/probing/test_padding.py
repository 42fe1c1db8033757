"""ND712: what counts as padding, and what else is no fault."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor
from normdoctor import layers
from normdoctor.findings import Finding

PADDED = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "models" / "padded_nets.py")))


def found(model: nn.Module, data: Sequence[Any]) -> list[Finding]:
    report = normdoctor.check(model, data[0], data=data, select=["ND712"])
    assert not report.problems
    assert "error" not in report.counts()
    return list(report.findings)


def stack(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), *last)


def signals() -> list[Tensor]:
    return [PADDED.Convolutions.batch(torch.Generator().manual_seed(seed), 24) for seed in range(2)]


def test_the_first_norm_is_named_and_the_others_are_counted() -> None:
    model = PADDED.Convolutions()
    (one,) = found(model, signals())
    assert one.modules == ("net.1",)
    assert one.evidence["others"] == ["net.5"]
    assert one.evidence["padding"] == pytest.approx(0.25, abs=0.05)
    assert (one.severity, one.confidence) == ("warning", "medium")


@pytest.mark.parametrize("value", [-3.0, -80.0, "by channel"])
def test_padding_of_other_values(value: Any) -> None:
    pad = torch.arange(6.0)[:, None] if value == "by channel" else torch.tensor(value)
    data = [torch.where(x == 0, pad, x) for x in signals()]
    assert found(stack(nn.AdaptiveAvgPool1d(1)), data)


def test_silent_without_padding_or_where_all_samples_have_as_much() -> None:
    model = stack(nn.AdaptiveAvgPool1d(1))
    assert not found(model, [torch.randn(32, 6, 24) for _ in range(2)])
    assert not found(model, [F.pad(torch.randn(32, 6, 16), (0, 8)) for _ in range(2)])


def test_silent_where_the_model_refuses_another_length() -> None:
    assert not found(stack(nn.Flatten(), nn.Linear(8 * 24, 4)), signals())


def test_silent_on_made_up_data() -> None:
    model = stack(nn.AdaptiveAvgPool1d(1))
    assert not normdoctor.check(model, signals()[0], data="synthetic", select=["ND712"]).findings


def test_silent_on_images_on_a_black_ground() -> None:
    """Digits end, and begin, with black columns."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x = F.pad(torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, (3, 3, 3, 3))
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert not found(model, list(x[:256].split(64)))


def test_silent_on_features_with_zeros_at_the_end() -> None:
    x = torch.relu(torch.randn(64, 12))
    model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU())
    assert not found(model, [x, x + 0.0])


class OwnLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 8, 3, padding=1), layers.MaskedBatchNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        mask = (x != 0).any(1)
        result: Tensor = self.norm(self.conv(x), mask).sum(2)
        return result


@pytest.mark.parametrize("training", [True, False])
def test_silent_with_the_layer_for_it(training: bool) -> None:
    assert not found(OwnLayer().train(training), signals())


def test_norms_that_are_frozen_in_a_training_have_no_batch_statistics() -> None:
    model = stack(nn.AdaptiveAvgPool1d(1))
    model[1].eval()
    assert not found(model, signals())


def test_other_norms_are_silent() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.AdaptiveAvgPool1d(1))
    assert not found(model, signals())


def test_the_model_is_left_as_it_was() -> None:
    model = stack(nn.AdaptiveAvgPool1d(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found(model, signals())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
