"""`--loss`, `--optimizer`, `--reference`, `--weights` on the command line and in the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.fc = nn.Linear(8, classes)
        self.norm = nn.BatchNorm1d(classes)

    def forward(self, x):
        return {"cls": torch.softmax(self.norm(self.fc(x)), -1)}

inputs = torch.zeros(2, 8)
"""
TOOLS = """
import torch
import torch.nn.functional as F
from torch import nn

def loss_fn(out, y):
    return F.cross_entropy(out["cls"], y)

class Loss(nn.Module):
    def forward(self, out, y):
        return loss_fn(out, y)

def make_loss():
    return Loss()

number = 3

def optimizer(model):
    return torch.optim.AdamW(model.parameters(), weight_decay=0.1)

def of_parameters(parameters):
    return torch.optim.SGD(parameters, lr=0.1)

def broken(model):
    raise ValueError("no such thing")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


@pytest.fixture
def run(folder: Path, cli: Callable[..., Result]) -> Callable[..., tuple[int, str]]:
    """Checks the model in a folder of its own; returns the exit code and all that was printed."""

    def checked(*arguments: str) -> tuple[int, str]:
        result = cli("check", "model.py:Net", *arguments)
        return result.exit_code, result.output

    return checked


@pytest.mark.parametrize("loss", ["tools.py:loss_fn", "tools:loss_fn", "tools.py:Loss", "tools.py:make_loss"])
def test_a_loss_by_a_target_string(run, folder: Path, loss: str) -> None:
    code, text = run("--select", "ND310", "--loss", loss)
    assert code == 1, text
    assert "ND310" in text


def test_a_loss_in_the_settings(run, folder: Path) -> None:
    (folder / "normdoctor.toml").write_text('loss = "tools.py:loss_fn"\nselect = ["ND310"]\n')
    assert run()[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "tools.py:nothing"), "no name `nothing`"),
        (("--loss", "nowhere.py:loss"), "nowhere.py"),
        (("--loss", "tools.py"), "expected a name behind a file"),
        (("--loss", "tools.py:number"), "`loss` is an int"),
        (("--loss", "cross_entrop"), "unknown loss"),
        (("--optimizer", "tools.py:broken"), "no such thing"),
        (("--optimizer", "tools.py:loss_fn"), "made no optimizer"),
        (("--reference", "nowhere.py:Net"), "nowhere.py"),
        (("--weights", "none.pt"), "no such file"),
    ],
)
def test_a_clear_error(run, folder: Path, arguments: tuple[str, str], message: str) -> None:
    code, text = run(*arguments)
    assert code == 2, text
    assert message in text


@pytest.mark.parametrize(("name", "code"), [("optimizer", 1), ("of_parameters", 0)])
def test_an_optimizer(run, folder: Path, name: str, code: int) -> None:
    found, text = run("--select", "ND508", "--fail-on", "info", "--optimizer", f"tools.py:{name}")
    assert found == code, text


def test_weights_and_a_reference(run, folder: Path) -> None:
    online = nn.Module()
    online.fc, online.norm = nn.Linear(8, 4), nn.BatchNorm1d(4)
    torch.save(online.state_dict(), folder / "w.pt")
    torch.save(nn.Linear(8, 4), folder / "whole.pt")
    code, text = run("--select", "ND513", "--reference", "model.py:Net", "--weights", "w.pt", "-v")
    assert code == 0, text
    assert "weights loaded from w.pt" in text
    assert run("--weights", "whole.pt")[0] == 2


def test_a_loss_in_the_settings_is_found_from_another_folder(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "normdoctor.toml").write_text('loss = "tools.py:loss_fn"\nselect = ["ND310"]\n')
    (folder / "below").mkdir()
    (folder / "below" / "model.py").write_text(MODEL)
    monkeypatch.chdir(folder / "below")
    assert run()[0] == 1
