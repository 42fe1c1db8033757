"""Scenes: a net, its data, and how all measured rules examine it. A fault changes any of these."""

from __future__ import annotations

import linecache
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor
from normdoctor.findings import Finding
from normdoctor.report import Report

#: All measured rules.
MEASURED = ["ND6", "ND7", "ND8"]
MODELS = Path(__file__).parents[2] / "models"


def models(name: str) -> SimpleNamespace:
    """The nets of a file of tests/models."""
    return SimpleNamespace(**runpy.run_path(str(MODELS / f"{name}.py")))


ACTIVATION, NORM, DEEP, ATTENTION, GATE, PADDED = (
    models(f"{kind}_nets") for kind in "activation norm deep attention gate padded".split()
)


def logits(output: Any) -> Tensor:
    """What the loss takes of the outputs."""
    return output["logits"] if isinstance(output, dict) else output


def path_of(model: nn.Module, module: nn.Module) -> str:
    """Where a module stands."""
    return next(path for path, one in model.named_modules() if one is module)


def places(finding: Finding) -> set[str]:
    """Where a finding stands: its modules, what its message names, and the text of its source line."""
    found = {*finding.modules, *finding.message.split("`")[1::2]}
    if finding.location is not None:
        found.add(linecache.getline(finding.location.file, finding.location.line).strip())
    return found


class Checked:
    """Examined once, by `normdoctor.check`."""

    act = ""
    count, times = 4, 8

    def __init__(self, net: type[nn.Module]) -> None:
        torch.manual_seed(0)
        self.net = net
        self.model: Any = net(self.act) if self.act else net()
        self.data: Any = self.batches()

    def batches(self) -> list[Tensor]:
        """Batches of standard normal numbers."""
        n, *rest = self.net.shape  # type: ignore[attr-defined]
        return [torch.randn(n * self.times, *rest) for _ in range(self.count)]

    def findings(self) -> Sequence[Finding]:
        """What all measured rules find."""
        return judged(normdoctor.check(self.model, next(iter(self.data)), data=self.data, select=MEASURED))


class Relu(Checked):
    """Nets of tests/models/activation_nets.py with one activation."""

    act = "relu"


class Tanh(Relu):
    act = "tanh"


class Relu6(Relu):
    act = "relu6"


class Normed(Checked):
    """Nets with BatchNorms whose running statistics are exact."""

    def __init__(self, net: type[nn.Module]) -> None:
        super().__init__(net)
        normdoctor.recalibrate(self.model, self.data)

    def batches(self) -> list[Tensor]:
        found: list[Tensor] = NORM.batches(self.net)
        return found


class Plain(Checked):
    """Nets that bring batches of one size."""

    times = 1


class Padded(Normed):
    """Sequences of several lengths, and a net whose norms leave the padding out."""

    def __init__(self, net: type[nn.Module]) -> None:
        super().__init__(net)
        self.put(PADDED.TWINS[net]())

    def put(self, model: nn.Module) -> None:
        """Examine another net on the same data."""
        self.model = model
        normdoctor.recalibrate(model, self.data)

    def batches(self) -> list[Tensor]:
        found: list[Tensor] = PADDED.batches(self.net)
        return found


class Attending(Checked):
    """Nets with attention."""

    def batches(self) -> list[Tensor]:
        found: list[Tensor] = ATTENTION.data()
        return found


def judged(report: Report) -> Sequence[Finding]:
    """Its findings, where no rule failed and nothing was left out."""
    assert not report.problems
    assert "error" not in report.counts(), report.results
    return report.findings


class Trained:
    """Watched over some steps of training, each of which is observed."""

    steps, size, rate = 8, 64, 0.01
    forwards = 1

    def __init__(self, net: type[nn.Module]) -> None:
        torch.manual_seed(0)
        self.net = net
        self.model: Any = net()
        self.prepare: Callable[[Tensor], Tensor] = lambda x: x
        self.between: Callable[[int], None] = lambda step: None
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.cross_entropy

    def optimizer(self) -> torch.optim.Optimizer:
        """What makes the steps."""
        return torch.optim.SGD(self.model.parameters(), lr=self.rate)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs, and targets that can be learned from them."""
        x = torch.randn(self.size, *self.net.shape)  # type: ignore[attr-defined]
        return x, (x.flatten(1).mean(1) > 0).long()

    def cross_entropy(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a healthy training."""
        return F.cross_entropy(logits(self.model(x)), y)

    def step(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """One step, of one forward or several."""
        optimizer.zero_grad()
        for _ in range(self.forwards):
            x, y = self.batch()
            loss = self.loss(self.prepare(x), y)
            loss.backward()
        optimizer.step()
        return loss

    def findings(self) -> Sequence[Finding]:
        """What all measured rules find."""
        optimizer = self.optimizer()
        with normdoctor.watch(self.model, optimizer, every=1, on_finding="ignore") as watch:
            for step in range(self.steps):
                watch.step(self.step(optimizer).detach())
                self.between(step)
        return judged(watch.report())


class Accumulating(Trained):
    """Two forwards a step."""

    forwards = 2


class Deep(Trained):
    """Nets of eight layers."""

    rate = 1e-3

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.rate)

    def batch(self) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = DEEP.data()
        return found

    def put(self, fault: nn.Module) -> None:
        """Set a module behind the fifth layer."""
        if isinstance(self.model, nn.Sequential):
            self.model[2 * DEEP.AT + 2] = fault
        else:
            self.model.fault = fault


class Half(Deep):
    """Trained under autocast with a scaler."""

    def __init__(self, net: type[nn.Module]) -> None:
        super().__init__(net)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)

    def step(self, optimizer: torch.optim.Optimizer) -> Tensor:
        x, _ = self.batch()
        with torch.autocast("cpu", dtype=torch.float16):
            output = self.model(x)
        loss = 5e-6 * output.float().pow(2).mean()
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()
        return loss
