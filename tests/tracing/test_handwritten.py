"""Hand-written norms: every spelling is confirmed as what it is, nothing else is, and nothing changes."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from normdoctor.census import count_norms, handwritten_norms
from normdoctor.facts import HandwrittenNorm
from normdoctor.graph import Graph
from normdoctor.loading.target import from_object
from normdoctor.tracing.examine import Examination, Request, examine
from normdoctor.tracing.handwritten import find, search

MODELS = Path(__file__).parents[1] / "models"
NORMS = runpy.run_path(str(MODELS / "norms_by_hand.py"))
OTHERS = runpy.run_path(str(MODELS / "no_norms.py"))["OTHERS"]
MODULES = runpy.run_path(str(MODELS / "norm_modules.py"))
Spelled = NORMS["Spelled"]


def examined(model: nn.Module, *shape: int) -> Examination:
    return examine(from_object(model), Request(inputs=torch.randn(*shape)))


def spelled(function: Any, shape: tuple[int, ...]) -> Examination:
    return examined(Spelled(function, shape[1] if len(shape) == 4 else shape[-1]), *shape)


def the_norm(model: nn.Module, *shape: int) -> HandwrittenNorm:
    (norm,) = examined(model, *shape).facts.handwritten
    assert norm.confirmed
    return norm


@pytest.mark.parametrize("name", NORMS["SPELLINGS"])
def test_spellings(name):
    function, shape, wanted = NORMS["SPELLINGS"][name]
    (norm,) = spelled(function, shape).facts.handwritten
    assert norm.confirmed
    assert norm.inverted == (name == "inv")
    found = (norm.kind, norm.reduced, norm.eps, norm.eps_place, norm.unbiased, norm.centred)
    assert found == tuple(wanted)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_norm(name):
    function, shape = OTHERS[name]
    facts = spelled(function, shape).facts
    assert facts.nodes
    assert [norm for norm in facts.handwritten if norm.confirmed] == []


def test_a_weight_is_no_activation():
    function, shape = OTHERS["weight_standardized_by_batch_norm"]
    facts = spelled(function, shape).facts
    (node,) = (node for node in facts.nodes if node.kind == "batch_norm")
    assert node.role == "parameter"
    assert Graph(facts).norms == []


@st.composite
def norms(draw: st.DrawFn) -> tuple[Any, tuple[int, ...], dict[str, Any]]:
    """A norm over random axes in one of several spellings, and what it is."""
    shape = tuple(draw(st.lists(st.integers(2, 6), min_size=2, max_size=4)))
    axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    centred, unbiased = draw(st.booleans()), draw(st.booleans())
    place = draw(st.sampled_from(("inside", "outside", "none")))
    eps = draw(st.sampled_from((1e-3, 1e-5, 1e-6, 1e-8, 1e-12)))
    how = draw(st.sampled_from(("var", "mean", "sum")))
    total = 1
    for axis in axes:
        total *= shape[axis]
    known = {"axes": axes, "centred": centred, "eps": None if place == "none" else eps, "place": place}
    known["unbiased"] = unbiased if centred else None

    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        top = x - x.mean(axes, keepdim=True) if centred else x
        if centred and how == "var":
            spread = x.var(axes, keepdim=True, correction=int(unbiased))
        elif how == "sum" or (centred and unbiased):
            spread = (top * top).sum(axes, keepdim=True) / (total - int(centred and unbiased))
        else:
            spread = top.pow(2).mean(axes, keepdim=True)
        if place == "inside":
            return top * torch.rsqrt(spread + eps)
        return top / (spread.sqrt() + eps) if place == "outside" else top / spread**0.5

    return forward, shape, known


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(norms())
def test_any_axes(norm):
    forward, shape, known = norm
    total = int(torch.tensor([shape[axis] for axis in known["axes"]]).prod())
    assume(total > 2)  # of two elements, standardized, only the signs are left
    (found,) = examined(Spelled(forward, 2), *shape).facts.handwritten
    assert found.confirmed
    assert found.reduced == known["axes"]
    assert (found.eps, found.eps_place) == (known["eps"], known["place"])
    assert (found.centred, found.unbiased) == (known["centred"], known["unbiased"])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_batch_norm_by_hand(training, grad):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), MODULES["BatchNorm"](8)).train(training)
    with torch.set_grad_enabled(grad):
        norm = the_norm(model, 4, 3, 6, 6)
    assert (norm.kind, norm.module, norm.eps, norm.running) == ("batch_norm", "1", 1e-5, True)
    assert norm.frozen == (not training)
    assert norm.modes == {
        "train": "batch",
        "eval": "running",
        "train, no_grad": "batch",
        "eval, no_grad": "running",
    }
    assert norm.tracked == ("1.running_mean", "1.running_var")
    assert norm.scales == ("1.weight",)
    assert norm.shifts == ("1.bias",)
    if training:
        assert norm.tracked_unbiased is True


class CastBack(nn.Module):
    """A norm in float32 that is cast like another tensor before it is scaled."""

    def __init__(self, like: str) -> None:
        super().__init__()
        self.like = like
        self.linear = nn.Linear(8, 16)
        self.weight = torch.ones(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raw = self.linear(x)
        y = raw.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        other = {"input": raw, "before": x, "weight": self.linear.weight}.get(self.like, raw)
        return self.weight * (y.to(other) if self.like == "to" else y.type_as(other))


@pytest.mark.parametrize("like", ["input", "before", "weight", "to"])
def test_a_cast_like_another_tensor_ends_no_norm(like):
    norm = the_norm(CastBack(like), 4, 8)
    assert (norm.kind, norm.scales, norm.eps) == ("rms_norm", ("weight",), 1e-6)


def test_mode_from_gradients():
    norm = the_norm(nn.Sequential(nn.Conv2d(3, 8, 3), MODULES["GradBatchNorm"](8)), 4, 3, 6, 6)
    assert list(norm.modes.values()) == ["batch", "batch", "running", "running"]


def test_frozen_batch_norm():
    norm = the_norm(nn.Sequential(nn.Conv2d(3, 8, 3), MODULES["FrozenBatchNorm"](8)), 4, 3, 6, 6)
    assert (norm.kind, norm.frozen, norm.eps) == ("batch_norm", True, 1e-5)
    assert norm.evidence["statistics"] == ["1.running_var", "1.running_mean"]
    assert set(norm.modes.values()) == {"running"}


def test_layers_are_confirmed_once(monkeypatch):
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return confirm(*args)

    confirm = search.confirm
    monkeypatch.setattr(search, "confirm", counted)
    model = nn.Sequential(
        *(layer for _ in range(24) for layer in (MODULES["RMSNorm"](16), nn.Linear(16, 16)))
    )
    facts = examined(model, 2, 4, 16).facts
    assert len(calls) == 1
    assert count_norms(facts) == {"RMSNorm": 24}
    assert [norm.module for norm in facts.handwritten] == [str(2 * place) for place in range(24)]


def test_large_inputs_are_made_small():
    norm = the_norm(MODULES["RMSNorm"](256).to("meta"), 64, 2048, 256)
    assert (norm.kind, norm.reduced, norm.evidence["elements"]) == ("rms_norm", (2,), 256)


def test_what_fits_nothing_is_named():
    facts = spelled(*OTHERS["grn"]).facts
    (norm,) = facts.handwritten
    assert (norm.confirmed, norm.evidence["reason"]) == (False, "the numbers fit none")
    assert handwritten_norms(facts, confirmed=False) == {"a part of Spelled": 1}
    assert count_norms(facts) == {}


@pytest.mark.parametrize("name", ["BatchNorm", "GradBatchNorm", "FrozenBatchNorm", "RMSNorm"])
def test_nothing_changes(name):
    channels = 16 if name == "RMSNorm" else 8
    model = nn.Sequential(MODULES[name](channels))
    shape = (2, 4, 16) if name == "RMSNorm" else (4, 8, 6, 6)
    recording = examined(model, *shape).recording
    nodes = examined(model, *shape).facts.nodes
    before = copy.deepcopy(model.state_dict()), {id(t) for t in model.state_dict(keep_vars=True).values()}
    attributes = {key: value for key, value in vars(model[0]).items() if key != "_buffers"}
    generator = torch.random.get_rng_state()
    find(recording, nodes)
    assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
    assert {id(t) for t in model.state_dict(keep_vars=True).values()} == before[1]
    assert {key: value for key, value in vars(model[0]).items() if key != "_buffers"} == attributes
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())
