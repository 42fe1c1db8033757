"""A small project that passes, and one whose model has a fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CLEAN = """\
import torch
from torch import nn

model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
inputs = torch.zeros(4, 3, 8, 8)
"""
FAULTY = CLEAN.replace("nn.BatchNorm2d(8)", "nn.BatchNorm2d(8, eps=8)")
FIXABLE = CLEAN.replace(", bias=False", "")
KINDS = {"clean": CLEAN, "faulty": FAULTY, "fixable": FIXABLE}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes `net.py`, and a configuration that names it, into the current folder, a temporary one."""
    monkeypatch.chdir(tmp_path)

    def make(kind: str) -> Path:
        (tmp_path / "net.py").write_text(KINDS[kind])
        (tmp_path / "normdoctor.toml").write_text('targets = ["net.py"]\nfail-on = "info"\n')
        return tmp_path

    return make


@pytest.fixture
def surroundings() -> dict[str, str]:
    """Variables of a process that finds `normdoctor` and this Python first."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "GITHUB_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return own | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
