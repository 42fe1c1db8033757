"""Recording does not import torch's compiler, and leaves nothing where it would have been."""

import subprocess
import sys

import torch

from normdoctor.tracing.uncompiled import MARK, _kept_out, without_compiler

CHECK = """
import sys, torch
from torch import nn
import normdoctor

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
    def forward(self, x):
        x = torch.nn.functional.gelu(self.bn(self.conv(x))).mean((2, 3))
        x = x + torch.relu(self.norm(x)) * 2
        return torch.nn.functional.dropout(self.head(x)).softmax(-1)

report = normdoctor.check(Net(), torch.randn(2, 3, 8, 8), loss=nn.CrossEntropyLoss())
assert report.targets[0].recorded == "meta"
assert "torch._dynamo" not in sys.modules
from normdoctor.tracing.uncompiled import MARK, _kept_out
assert len(_kept_out()) > 100
assert not any(hasattr(function, MARK) for function in _kept_out())
f = torch.compile(lambda x: torch.relu(x) + 1, backend="eager", fullgraph=True)
assert torch.equal(f(torch.ones(3)), torch.full((3,), 2.0))
torch.empty(2, device="meta") + 1
assert "torch._dynamo" in sys.modules
assert any(hasattr(function, MARK) for function in _kept_out())
"""


def test_a_check_imports_no_compiler():
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_marked_already_stays(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    first, *others = _kept_out()
    own = object()
    monkeypatch.setitem(first.__dict__, MARK, own)
    before = {function: getattr(function, MARK, None) for function in others}
    with without_compiler():
        with without_compiler():
            assert torch.add(torch.empty(2, 3, device="meta"), 1).shape == (2, 3)
        assert all(hasattr(function, MARK) for function in others)
        assert getattr(first, MARK) is own
    assert {function: getattr(function, MARK, None) for function in others} == before


def test_the_compiler_in_use_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", sys.modules.get("torch._dynamo", object()))
    before = [getattr(function, MARK, None) for function in _kept_out()]
    with without_compiler():
        assert [getattr(function, MARK, None) for function in _kept_out()] == before
