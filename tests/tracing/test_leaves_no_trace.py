"""Recording and checking change nothing: parameters, buffers, modes, grads, RNG, hooks and attributes."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import normdoctor
from normdoctor.errors import NormDoctorError
from normdoctor.loading.state import inventory


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that must be the same afterwards, tensors by value, objects by identity."""
    state: dict[str, Any] = {
        "rng": torch.random.get_rng_state().numpy().tobytes(),
        "python rng": random.getstate(),
        "numpy rng": str(np.random.get_state()),
        "grad": torch.is_grad_enabled(),
        "call": nn.Module.__call__,
        "apply": vars(torch.autograd.Function)["apply"],
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    for path, entry in inventory(model).modules.items():
        module = entry.module
        state[f"{path} class"] = type(module)
        state[f"{path} training"] = module.training
        for name, value in module.__dict__.items():
            state[f"{path}.{name}"] = _frozen(value)
    for name, entry in inventory(model).tensors.items():
        tensor = entry.tensor
        state[f"{name} id"] = id(tensor)
        if entry.kind == "parameter":  # autograd refuses tensors that were written to
            state[f"{name} version"] = tensor._version
        state[f"{name} value"] = tensor.detach().clone().numpy().tobytes()
        state[f"{name} grad"] = None if tensor.grad is None else tensor.grad.numpy().tobytes()
        state[f"{name} requires_grad"] = tensor.requires_grad
    return state


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _frozen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_frozen(item) for item in value]
    return id(value)


class Untidy(nn.Module):
    """Does to itself what real models do in forward, and some more."""

    def __init__(self, width: int, *, fail: bool, real: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.moving = torch.zeros(width)
        self.seen: list[torch.Tensor] = []
        self.cache: dict[str, Any] = {"deep": {"keys": []}}
        self.hidden = [nn.Linear(width, width)]
        self.fail, self.real = fail, real

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.norm(self.layer(x)), 0.5, training=self.training)
        self.moving = 0.9 * self.moving + 0.1 * x.mean(0)
        self.norm.running_mean += 1
        with torch.no_grad():
            self.layer.weight.mul_(0.5)
        self.seen.append(x)
        self.cache["deep"]["keys"].append(x)
        self.cache["last"] = x
        self.steps = len(self.seen)
        self.layer.eval()
        x = self.hidden[0](x) + torch.rand(1) + random.random() + np.random.rand()
        if self.real and x.sum() > 1e9:
            return x
        if self.fail:
            raise KeyError("a fault of the user's")
        return x


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_an_untidy_forward_leaves_no_trace(fail: bool, real: bool, training: bool) -> None:
    torch.manual_seed(3)
    model = Untidy(8, fail=fail, real=real).train(training)
    model.layer(torch.randn(4, 8)).sum().backward()
    model.layer.register_forward_hook(lambda *_: None)
    x = torch.randn(4, 8)
    before = fingerprint(model)
    report = normdoctor.check(model, x)
    assert bool(report.problems) == fail
    assert fingerprint(model) == before


def test_keyboard_interrupt_leaves_no_trace() -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.norm(x)
            raise KeyboardInterrupt

    model, x = Interrupted(), torch.randn(4, 4)
    before = fingerprint(model)
    with pytest.raises(KeyboardInterrupt):
        normdoctor.check(model, x)
    assert fingerprint(model) == before


LAYERS = st.sampled_from(
    [
        lambda c: nn.Conv2d(c, c, 3, padding=1),
        lambda c: nn.BatchNorm2d(c),
        lambda c: nn.BatchNorm2d(c, momentum=None),
        lambda c: nn.GroupNorm(2, c),
        lambda c: nn.InstanceNorm2d(c, track_running_stats=True),
        lambda c: nn.ReLU(inplace=True),
        lambda c: nn.Sigmoid(),
        lambda c: nn.Dropout2d(0.3),
        lambda c: nn.utils.spectral_norm(nn.Conv2d(c, c, 1)),
        lambda c: nn.utils.parametrizations.weight_norm(nn.Conv2d(c, c, 1)),
        lambda c: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1)),
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    layers=st.lists(LAYERS, min_size=1, max_size=6),
    channels=st.sampled_from([2, 4, 8]),
    batch=st.integers(1, 3),
    wrong=st.booleans(),
    training=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_made_up_models_are_left_as_they_were(
    layers: list[Any], channels: int, batch: int, wrong: bool, training: bool
) -> None:
    model = nn.Sequential(*[make(channels) for make in layers]).train(training)
    x = torch.randn(batch, channels + wrong, 8, 8)
    before = fingerprint(model)
    with contextlib.suppress(NormDoctorError):
        normdoctor.check(model, x, data=[x, x])
    assert fingerprint(model) == before
