"""Loading leaves no trace in the process, also when the file raises, exits, trains or never ends."""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

from normdoctor.errors import TargetError
from normdoctor.loading.target import load

RUDE = """
import os, sys, random, signal, warnings, socket, argparse, threading
import helper_of_rude
import torch
from torch import nn
sys.argv += ["--changed"]
sys.argv = ["other"]
sys.path.insert(0, "/nowhere")
sys.path = list(sys.path)
sys.setrecursionlimit(12345)
sys.excepthook = lambda *a: None
os.chdir("/")
os.environ["RUDE"] = "1"
os.environ.pop("PATH", None)
random.seed(7)
torch.manual_seed(7)
torch.rand(3)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *a: None)
warnings.simplefilter("ignore")
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_default_device("cpu")
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(False)
torch.backends.cudnn.benchmark = True
torch.autograd.set_detect_anomaly(True)
print("said on stdout")
model = nn.Sequential(nn.Linear(3, 3))
with torch.enable_grad():
    loss = model(torch.ones(2, 3)).sum()
"""

ENDINGS = {
    "ends": "",
    "raises": "raise RuntimeError('boom')",
    "exits": "sys.exit(4)",
    "trains": "loss.requires_grad_().backward()",
    "steps": "torch.optim.SGD(model.parameters(), 0.1).step()",
    "hangs": "while True: pass",
    "downloads": "socket.create_connection(('data.example.org', 80))",
    "interrupts": "raise KeyboardInterrupt",
}


def snapshot() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    return {
        "argv": (sys.argv, list(sys.argv)),
        "path": (sys.path, list(sys.path)),
        "modules": set(sys.modules),
        "meta_path": list(sys.meta_path),
        "std": (sys.stdin, sys.stdout, sys.stderr),
        "limits": (sys.getrecursionlimit(), sys.excepthook, sys.dont_write_bytecode),
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": None if numpy is None else repr(numpy.random.get_state()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "warnings": list(warnings.filters),
        "module": (nn.Module.__init__, nn.Module.__call__, nn.Module.__dict__.get("__reduce_ex__")),
        "backward": (torch.Tensor.backward, torch.autograd.backward),
        "step": (
            torch.optim.Optimizer.step,
            dict(_global_optimizer_pre_hooks),
        ),
        "parser": (argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args),
        "socket": (
            socket.socket.__dict__.get("connect"),
            socket.socket.__dict__.get("connect_ex"),
            socket.getaddrinfo,
        ),
        "torch settings": (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.get_deterministic_debug_mode(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.is_anomaly_enabled(),
            torch.backends.cudnn.benchmark,
            torch.overrides._get_current_function_mode(),
        ),
        "threads": {thread.name for thread in threading.enumerate()},
    }


@pytest.fixture
def rude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_of_rude.py").write_text("from torch import nn\n")

    def write(ending: str) -> Path:
        path = tmp_path / "rude.py"
        path.write_text(RUDE + ending + "\n")
        return path

    return write


@pytest.mark.parametrize("ending", ENDINGS)
def test_everything_is_as_before(
    ending: str, rude: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot()
    load(str(rude("")))
    before["modules"] = set(sys.modules)  # what libraries import once may stay
    path = rude(ENDINGS[ending])
    capsys.readouterr()
    if ending == "interrupts":
        with pytest.raises(KeyboardInterrupt):
            load(str(path), import_timeout=5)
    else:
        (target,) = load(str(path), import_timeout=0.5 if ending == "hangs" else 20)
        assert isinstance(target.model, nn.Sequential)
        assert (target.stopped is None) == (ending == "ends")
    after = snapshot()
    after["modules"] -= {name for name in after["modules"] if name.startswith(("torch", "sympy", "mpmath"))}
    before["modules"] -= {name for name in before["modules"] if name.startswith(("torch", "sympy", "mpmath"))}
    for key, value in before.items():
        assert after[key] == value, key
    assert not list(path.parent.rglob("__pycache__"))
    assert capsys.readouterr().out == ""


def test_also_when_nothing_could_be_built(rude: Callable[[str], Path]) -> None:
    path = rude("")
    path.write_text("import os\nos.chdir('/')\nraise RuntimeError('boom')\n")
    before = snapshot()
    with pytest.raises(TargetError):
        load(str(path))
    after = snapshot()
    for key, value in before.items():
        assert after[key] == value, key


def test_a_module_of_the_same_name_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for index, folder in enumerate((first, second)):
        folder.mkdir()
        (folder / "parts.py").write_text(f"width = {index + 2}\n")
        (folder / "model.py").write_text(
            "from torch import nn\nfrom parts import width\nnet = nn.Linear(1, width)\n"
        )
    monkeypatch.syspath_prepend(str(first))
    import importlib

    mine = importlib.import_module("parts")
    assert [load(str(folder / "model.py"))[0].model.out_features for folder in (second, first)] == [3, 2]
    assert sys.modules.pop("parts") is mine


def test_the_forgotten_parameter_holds_the_fill(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.scale = nn.Parameter(torch.empty(5))\n        self.fc = nn.Linear(5, 5)\n"
        "    def forward(self, x):\n        return self.fc(x) * self.scale\n"
    )
    (target,) = load(str(path))
    assert target.model.scale.isnan().all()
    assert target.model.fc.weight.isfinite().all()
    assert not torch.empty(64).isnan().all()


def test_two_loads_give_equal_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("from torch import nn\nnet = nn.Linear(4, 4)\n")
    first, second = (load(str(path))[0].model for _ in range(2))
    assert torch.equal(first.weight, second.weight)
