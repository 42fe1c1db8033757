"""ND612: collapsed attention is found however it is written; masks and healthy layers say nothing."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.probing.attention import AttentionCollector
from normdoctor.probing.probe import probe

HERE = runpy.run_path(str(Path(__file__).parents[1] / "models" / "attention_nets.py"))
(
    D,
    T,
    Base,
    Encoder,
    FusedBias,
    FusedCausal,
    FusedMask,
    Grouped,
    Keys,
    MaskedDropout,
    Module,
    Multihead,
    MultiheadCausal,
    NETS,
    Einsum,
    data,
) = (
    HERE[name]
    for name in (
        "D T Base Encoder FusedBias FusedCausal FusedMask Grouped Keys MaskedDropout Module "
        "Multihead MultiheadCausal NETS Einsum data"
    ).split()
)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_planted_and_healthy(net, training):
    def found(gain):
        model = net(gain).train(training)
        report = normdoctor.check(model, data()[0], data=data(), select="ND612")
        assert [result.outcome for result in report.results] != ["skipped"]
        return [(finding.modules, str(finding.severity)) for finding in report.findings]

    assert found(1.0) == []
    (((module,), severity),) = found(400.0)
    assert severity == "warning"
    expected = {Encoder: "encoder.layers.0.self_attn", Module: "softmax"}
    expected |= dict.fromkeys((Multihead, MultiheadCausal), "mha")
    assert module == expected.get(net, "")


def figures(model, x, budget=None):
    (found,) = probe(model, [x], [AttentionCollector(budget)])["attention"].values()
    return found


@pytest.mark.parametrize("net", NETS[:-1])
def test_entropies_equal_the_textbook(net):
    model, x = net(3.0).eval(), data()[0]
    with torch.no_grad():
        if isinstance(model, Multihead):
            q, k = (
                F.linear(x, w, b)
                for w, b in zip(
                    model.mha.in_proj_weight.chunk(3)[:2], model.mha.in_proj_bias.chunk(3)[:2], strict=True
                )
            )
            q, k = (one.view(4, T, 4, D // 4).transpose(1, 2) for one in (q, k))
        elif net in (Module, Keys):
            q, k = model.q(x) * 3, model.k(x)
        else:
            q, k, _ = model.heads(x)
        if net is Grouped:
            k = k[:, [0, 0, 1, 1]]
        scale = {MaskedDropout: 1.0, Einsum: 1.0, FusedMask: 0.3}.get(net, 1 / math.sqrt(q.shape[-1]))
        scores = (q @ k.transpose(-2, -1)) * scale
        left = torch.ones(T, T, dtype=torch.bool)
        if net in (MaskedDropout, FusedCausal, FusedMask, FusedBias, MultiheadCausal):
            left = left.tril()
        if net is Multihead:
            left[:, -5:] = False
        weights = scores.masked_fill(~left, -math.inf).softmax(-1)
        entropy = torch.special.entr(weights).sum(-1)
        rows = left.sum(-1) > 1
        most = left.sum(-1)[rows].double().log().mean()
    found = figures(model, x)
    assert found["entropy"] == pytest.approx(entropy[..., rows].mean().item(), rel=1e-4)
    assert found["most"] == pytest.approx(most.item(), rel=1e-5)
    assert found["rows"] == entropy[..., rows].numel()


@pytest.mark.parametrize("net", NETS[:-1])
def test_a_budget_bounds_the_sample(net):
    model, x = net(3.0).eval(), data()[0]
    whole, part = figures(model, x), figures(model, x, budget=800)
    assert 0 < part["rows"] <= 800 / T * 2
    assert part["rows"] < whole["rows"]
    assert abs(part["ratio"] - whole["ratio"]) < 0.25


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(D, 10)

    def forward(self, x):
        return (100 * self.fc(x)).softmax(-1)


class FewKeys(nn.Module):
    def forward(self, x):
        return (1000 * x[..., :3]).softmax(-1) @ x[..., :3].transpose(-2, -1)


@pytest.mark.parametrize("net", [Classifier, FewKeys, lambda: nn.Softmax(1), nn.Identity])
def test_a_softmax_that_is_no_attention(net):
    assert normdoctor.check(net(), data()[0], data=data(), select="ND612").findings == ()


class Diagonal(Base):
    """Each position may look at itself only: there is nothing to choose."""

    def forward(self, x):
        q, k, v = self.heads(x)
        scores = (q @ k.transpose(-2, -1)).masked_fill(~torch.eye(T, dtype=torch.bool), -1e9)
        return scores.softmax(-1) @ v


def test_a_mask_that_leaves_one_key_is_no_collapse():
    assert normdoctor.check(Diagonal(), data()[0], data=data(), select="ND612").findings == ()


def test_it_is_no_trace():
    model = Multihead(2.0)
    state, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        torch.manual_seed(1)
        plain = model(data()[0])
        torch.manual_seed(1)
        observed = []
        handle = model.register_forward_hook(lambda *_: observed.append(_[2]))
        with normdoctor.watch(model, every=1, on_finding="ignore"):
            model(data()[0])
        handle.remove()
    assert torch.equal(plain, observed[0])
    torch.set_rng_state(rng)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
