"""`--data`, `--batches`, `--batch-size` on the command line and in the settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 16)
        with torch.no_grad():
            self.fc.bias[:12] = -50.0
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(torch.relu(self.fc(x)))

inputs = torch.zeros(2, 8)
"""
DATA = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def make():
    import shapes
    return [(torch.randn(100, shapes.WIDTH), 0)] * 50

def sized(n=100):
    import shapes
    for _ in range(50):
        yield torch.randn(n, shapes.WIDTH)

dataset = TensorDataset(torch.randn(2000, 8))
loader = DataLoader(dataset, batch_size=100)
lines = [torch.randn(100, 8)] * 20
empty = []
wrong = [torch.randn(4, 9)]
number = 3

def broken():
    raise OSError("no such disk")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sets.py").write_text(DATA)
    (tmp_path / "data" / "shapes.py").write_text("WIDTH = 8")

    def checked(*arguments: str) -> Result:
        return cli("check", "model.py:Net", "--select", "ND601", *arguments)

    return checked


@pytest.mark.parametrize("name", ["make", "sized", "loader", "lines", "make()", "sized(200)"])
def test_data_by_a_target_string(run, name: str) -> None:
    result = run("--data", f"data/sets.py:{name}")
    assert result.exit_code == 1, result.output
    assert "error[ND601]" in result.output
    assert "note: measured over" in result.output
    assert f"batches of data/sets.py:{name}" in result.output


def test_the_number_of_batches_is_said(run) -> None:
    assert "the first 32 batches of data/sets.py:make (--batches" in run("--data", "data/sets.py:make").output
    result = run("--data", "data/sets.py:make", "--batches", "11")
    assert "the first 11 batches of data/sets.py:make" in result.output
    assert "over 20 batches of data/sets.py:lines" in run("--data", "data/sets.py:lines").output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/sets.py:maker", "no name `maker`"),
        ("data/sets.py", "expected a name behind a file"),
        ("data/missing.py:make", "missing.py"),
        ("data/sets.py:empty", "found none in data/sets.py:empty"),
        ("data/sets.py:number", "found data/sets.py:number to be an int (3)"),
        ("data/sets.py:dataset", "DataLoader"),
        ("data/sets.py:broken", "no such disk"),
        ("data/sets.py:wrong", "RuntimeError on batch 0 of data/sets.py:wrong"),
    ],
)
def test_wrong_data_is_one_clear_error(run, name: str, said: str) -> None:
    result = run("--data", name)
    assert result.exit_code == 2
    assert said in result.stderr
    assert [line for line in result.stderr.splitlines() if line.startswith("Error:")] == [
        result.stderr.splitlines()[0]
    ]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("flag", ["--batches", "--batch-size"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts(run, flag: str, value: str) -> None:
    result = run(flag, value)
    assert result.exit_code == 2
    assert flag in result.stderr


def test_synthetic_data(run) -> None:
    result = run("--data", "synthetic", "--batch-size", "64", "--output-format", "json")
    assert result.exit_code == 1, result.output
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["severity"] == "warning"
    assert finding["evidence"]["source"] == "synthetic"
    assert "synthetic" in finding["message"]


def test_measured_facts_can_be_checked_again(run, cli) -> None:
    run("--data", "data/sets.py:lines", "--save-facts", "facts.json")
    result = cli("check", "--from-facts", "facts.json", "--select", "ND601")
    assert result.exit_code == 1
    assert "error[ND601]" in result.output


def test_settings_name_data(run, tmp_path: Path) -> None:
    (tmp_path / "normdoctor.toml").write_text('data = "data/sets.py:lines"\nbatches = 12\nbatch-size = 100\n')
    result = run()
    assert "the first 12 batches of data/sets.py:lines" in result.output
    shown = run("--show-settings").output
    assert 'data = "data/sets.py:lines"  # normdoctor.toml' in shown
    assert "batch-size = 100" in shown
    (tmp_path / "normdoctor.toml").write_text("batches = 0\n")
    result = run()
    assert result.exit_code == 2
    assert "normdoctor.toml: batches: expected a number of at least 1, found 0" in result.stderr


def test_without_data_one_line_says_so(run) -> None:
    result = run("--select", "ND1")
    (line,) = [line for line in result.output.splitlines() if "pass data=" in line]
    assert line == "1 measured rule was skipped: pass data= / --data, or watch a training."
    assert "note: measured" not in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_no_card(run) -> None:
    result = run("--data", "data/sets.py:lines", "--device", "cuda")
    assert result.exit_code == 2
    assert "the device 'cuda' cannot be used here" in result.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
def test_a_card(run) -> None:
    result = run("--data", "data/sets.py:lines", "--device", "cuda")
    assert result.exit_code == 1, result.output
    assert "error[ND601]" in result.output
