"""Models as they are written every day: factories with settings, starred Sequentials, own norms."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import normdoctor
from normdoctor.cli import main

BLOCKS = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, norm_layer=None):
        super().__init__()
        norm_layer = norm_layer or nn.BatchNorm2d
        self.bn1 = norm_layer(width, momentum=0.9)  # as in TF
        self.bn2 = norm_layer(width, eps=1e-3, momentum=0.9, track_running_stats=True)
        self.bn3 = norm_layer(width)

    def forward(self, x):
        return self.bn3(self.bn2(self.bn1(x)))


model = nn.Sequential(nn.Conv2d(3, 8, 3), Block(8))
inputs = torch.randn(4, 3, 8, 8)
"""
CRITIC = """\
import torch
from torch import nn


def block(width, out):
    return [nn.Conv2d(width, out, 3), nn.LeakyReLU(0.2)]


model = nn.Sequential(
    *block(3, 8),
    nn.Conv2d(8, 1, 2),  # scores
    nn.Sigmoid(),
)
loss_fn = nn.BCEWithLogitsLoss()
inputs = torch.randn(4, 3, 8, 8)
"""


class OwnBatchNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, width, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.moving_mean = torch.zeros(1, width, 1, 1)
        self.moving_var = torch.ones(1, width, 1, 1)

    def forward(self, x):
        if not self.training:
            return self.gamma * (x - self.moving_mean) / torch.sqrt(self.moving_var + 1e-5) + self.beta
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.detach()
        self.moving_var = 0.9 * self.moving_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / torch.sqrt(var + 1e-5) + self.beta


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command on model.py; gives the result and the text of the file afterwards."""
    monkeypatch.chdir(tmp_path)

    def command(name, text, *args):
        Path("model.py").write_text(text)
        result = CliRunner().invoke(main, [name, "model.py", "--isolated", *args])
        return result, Path("model.py").read_text()

    return command


@pytest.mark.parametrize(
    ("to", "made"),
    [
        ("group", "functools.partial(nn.GroupNorm, 2)"),
        ("instance", "functools.partial(nn.InstanceNorm2d, affine=True)"),
    ],
)
def test_settings_of_running_statistics_leave_the_calls_of_a_factory(run, to, made):
    result, text = run("convert", BLOCKS, "--to", to, "--write")
    assert result.exit_code == 0, result.output
    assert f"norm_layer = norm_layer or {made}\n" in text
    assert "self.bn1 = norm_layer(width)  # as in TF\n" in text
    assert "self.bn2 = norm_layer(width, eps=1e-3)\n" in text
    assert "self.bn3 = norm_layer(width)\n" in text
    assert f"{made}, named in line 8" in result.output


def test_one_call_that_does_not_suit_leaves_all_of_its_factory(run):
    given = BLOCKS.replace("self.bn3 = norm_layer(width)", "self.bn3 = norm_layer(num_features=width)")
    result, text = run("convert", given, "--to", "group", "--write")
    assert result.exit_code == 0, result.output
    assert text == given
    assert result.output.count("left: line 11 gives the factory `num_features`") == 3


def test_settings_stay_where_both_layers_know_them(run):
    result, text = run("convert", BLOCKS, "--to", "sync", "--write")
    assert "self.bn1 = norm_layer(width, momentum=0.9)" in text
    assert "norm_layer or nn.SyncBatchNorm" in text
    assert "Outputs are the same" in result.output


def test_a_layer_that_is_one_already(run):
    result, _ = run("convert", BLOCKS, "--to", "batch")
    assert result.exit_code == 0
    assert result.output.count("left: it is a BatchNorm2d already") == 3
    assert "Outputs" not in result.output


def test_the_last_element_behind_starred_ones_goes(run):
    result, text = run(
        "check", CRITIC, "--fix", "--unsafe-fixes", "--select", "ND311", "--loss", "model.py:loss_fn"
    )
    assert result.exit_code == 0, result.output
    assert text == CRITIC.replace("    nn.Sigmoid(),\n", "")


def test_safe_fixes_come_before_the_layer_is_replaced():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 5), OwnBatchNorm(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    x = torch.randn(4, 1, 12, 12)
    for _ in range(3):
        model(x)
    result = normdoctor.fix(model, normdoctor.check(model, x), inputs=x, unsafe=True)
    assert [finding.code for finding in result.fixed] == ["ND503", "ND503", "ND101", "ND901"]
    assert not result.unfixed
    assert result.model[0].bias is None
    assert type(result.model[1]) is nn.BatchNorm2d
    torch.testing.assert_close(result.model.eval()(x), model.eval()(x))


def test_what_a_model_warns_of_is_said_once(run):
    text = BLOCKS.replace(
        "        return self.bn3", '        warnings.warn("mind the gap")\n        return self.bn3'
    )
    text = text.replace("import torch\n", "import warnings\n\nimport torch\n", 1)
    said = []
    for flags in ((), ("--diff",)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result, _ = run("check", text, "--select", "ND101", *flags)
        said.append(sum("mind the gap" in str(one.message) for one in caught))
    assert "bias=False" in result.output
    assert said[0] == said[1] > 0


def test_where_takes_a_factory_only_as_a_whole(run):
    result, text = run("convert", BLOCKS, "--to", "group", "--where", "1.bn3", "--write")
    assert result.exit_code == 0, result.output
    assert text == BLOCKS
    assert "left: the factory may build `1.bn1` too, which is not chosen" in result.output
    result, text = run("convert", BLOCKS, "--to", "group", "--where", "1.bn*", "--write")
    assert "nn.GroupNorm" in text
    result, _ = run("convert", BLOCKS, "--to", "group", "--where", "2.*")
    assert "No line builds norms at these paths only." in result.output
