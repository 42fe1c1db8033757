"""What a result of `convert` prints: few lines, whatever the number of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normdoctor import convert
from normdoctor.errors import RewriteError

X = torch.randn(4, 3, 8, 8)


def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16),
        nn.Flatten(),
    )


def test_layers_of_one_kind_share_a_line():
    told = str(convert(net(), "batch->group", inputs=X, num_groups=4)).splitlines()
    assert told[0] == "batch->group: 2 replaced, 0 refused; approximate"
    assert told[1] == "  2 BatchNorm2d -> GroupNorm(4): `*`"
    assert told[2].startswith("  eval outputs differ: max")


def test_the_two_layers_of_one_name_are_told_apart():
    own = convert(net(), "torch->own", inputs=X)
    assert "  2 BatchNorm2d -> normdoctor.layers.BatchNorm2d: `*`" in str(own)
    back = str(convert(own.model, "own->torch", inputs=X))
    assert "  2 BatchNorm2d -> torch.nn.BatchNorm2d: `*`" in back
    assert "  eval outputs are equal" in back
    assert "differ" not in back


def test_settings_that_the_old_layers_did_not_have():
    assert "BatchNorm2d -> GhostBatchNorm(ghost_size=32): `1`\n" in str(
        convert(net(), "batch->ghost", inputs=X, where="1")
    )


def test_nothing_to_convert():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    assert str(convert(model, "batch->none", inputs=torch.randn(2, 3))).startswith(
        "batch->none: no layer that it converts"
    )


def test_layers_refused_for_one_reason_share_a_line():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU())
    for layer in (model[0], model[2]):
        nn.utils.parametrizations.weight_norm(layer, dim=0)
    result = convert(model, "batch->group", inputs=X)
    assert len(result.refused) == 2
    assert str(result).count("refused: ") == 1
    assert "outputs" not in str(result)


class Tailed(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, width):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_layers_with_children_take_no_more_lines():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Tailed(8))
    told = str(convert(model, "batch->none", inputs=X)).splitlines()
    assert told[1].startswith("  Tailed -> ")
    assert told[1].endswith(": `1`")
    assert told[1].count("(") == 0


class DropsAlways(nn.Module):
    """Folding the norm leaves its input's order in memory, in which dropout draws."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)

    def forward(self, x):
        x = self.norm(self.fc(x).transpose(1, 2)).transpose(1, 2)
        return nn.functional.dropout(x, 0.5)


def test_dropout_behind_a_layer_is_not_blamed_on_it():
    torch.manual_seed(0)
    with pytest.raises(RewriteError) as caught:
        convert(DropsAlways(), "batch->none", inputs=torch.randn(4, 6, 8))
    assert "dropout draws in the order of memory" in str(caught.value.hint)
