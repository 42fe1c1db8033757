"""What the process had imported before a target was loaded is no part of the target."""

from __future__ import annotations

import importlib
import sys

import pytest

import normdoctor

MODEL = """
import torch
from torch import nn
{line}
net = nn.Sequential(nn.Linear(4, 4), nn.Softmax(1))
inputs = torch.randn(8, 4)
"""
LOSSES = "from torch import nn\ncriterion = nn.CrossEntropyLoss()\n"


@pytest.mark.parametrize(("line", "found"), [("", []), ("from training import criterion", ["ND310"])])
def test_losses_of_the_target_s_own_files_only(tmp_path, monkeypatch, line, found):
    model, own = tmp_path / "models", tmp_path / "helpers" / "training.py"
    model.mkdir()
    own.parent.mkdir()
    own.write_text(LOSSES, encoding="utf-8")
    (model / "model.py").write_text(MODEL.format(line=line), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(own.parent)
    try:
        importlib.import_module("training")
        report = normdoctor.check(str(model / "model.py"), select=["ND310"])
    finally:
        sys.modules.pop("training", None)
    assert [finding.code for finding in report.findings] == found
