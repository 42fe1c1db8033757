"""Real models through exact conversions and back: outputs, gradients and state dicts stay what they are."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import normdoctor

pytestmark = pytest.mark.zoo

IMAGE = (2, 3, 64, 64)
TIMM: dict[str, dict[str, Any]] = {
    "resnet10t": {}, "efficientvit_b0": {}, "convnext_atto": {}, "levit_128s": {"img_size": 64},
    "mobilenetv3_small_050": {}, "ghostnet_050": {}, "regnetx_002": {}, "tinynet_e": {}, "repvgg_a0": {},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 3},
    "resnetv2_50": {"layers": [1, 1, 1, 1], "channels": [32, 64, 96, 128]},
}  # fmt: skip
TORCHVISION = "shufflenet_v2_x0_5 squeezenet1_1 mnasnet0_5".split()
NAMES = [*TIMM, *TORCHVISION]


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A small model, whose norms hold values as after training, in float64."""
    torch.manual_seed(0)
    if name in TORCHVISION:
        model = pytest.importorskip("torchvision").models.get_model(name, weights=None)
    else:
        model = pytest.importorskip("timm").create_model(name, **TIMM[name])
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.4)
            module.weight.data.uniform_(0.7, 1.3)
    return model.double(), torch.randn(IMAGE, dtype=torch.float64)


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Outputs in both modes and gradients."""
    model = copy.deepcopy(model)
    found = [model.eval()(x)]
    torch.manual_seed(0)
    y = model.train()(x)
    y.square().mean().backward()
    return [*found, y, *(p.grad for p in model.parameters() if p.grad is not None), *model.buffers()]


def same_state(a: nn.Module, b: nn.Module) -> bool:
    old, new = a.state_dict(), b.state_dict()
    return list(old) == list(new) and all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str) -> None:
    model, x = built(name)
    before = step(model, x)
    own = normdoctor.convert(model, "torch->own", inputs=x)
    assert (own.verdict, own.verified, own.refused) == ("exact", True, ())
    assert same_state(model, own.model)
    size = max(one.double().norm().item() for one in before)
    for old, new in zip(before, step(own.model, x), strict=True):
        assert (old.double() - new.double()).norm().item() <= 1e-5 * old.double().norm().item() + 1e-9 * size
    back = normdoctor.convert(own.model, "own->torch", verify=False).model
    assert same_state(model, back)
    assert [type(one) for one in back.modules()] == [type(one) for one in model.modules()]
    norms = sum(isinstance(one, _BatchNorm) for one in model.modules())
    for spec, way_back in (("batch->frozen", "frozen->batch"), ("batch->sync", "sync->batch")):
        there = normdoctor.convert(model, spec, inputs=x)
        assert len(there.replaced) == norms
        back = normdoctor.convert(there.model, way_back, verify=False).model
        assert same_state(model, back)
        assert [type(one) for one in back.modules()] == [type(one) for one in model.modules()]


@pytest.mark.parametrize("name", NAMES)
def test_folding(name: str) -> None:
    model, x = built(name)
    norms = sum(isinstance(one, _BatchNorm) for one in model.modules())
    result = normdoctor.convert(model, "batch->none", inputs=x)
    assert len(result.replaced) + len(result.refused) == norms
    assert all(left.reason for left in result.refused)
    left = sum(isinstance(one, _BatchNorm) for one in result.model.modules())
    assert left == len(result.refused)
    if result.replaced:
        assert result.verified
        old, new = model.eval()(x), result.model.eval()(x)
        assert (old - new).norm() <= 1e-4 * old.norm()
