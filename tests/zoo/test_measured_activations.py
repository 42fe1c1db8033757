"""Measured activation rules on real models: no warning with random weights, none after 20 steps of SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor

pytestmark = pytest.mark.zoo

RULES = "ND601 ND602 ND603 ND604 ND605 ND607 ND609 ND610 ND611 ND613 ND614 ND615".split()


def torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None)
    return model


def timm(name: str, **settings: Any) -> nn.Module:
    model: nn.Module = pytest.importorskip("timm").create_model(name, **settings)
    return model


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=6, n_embd=192, n_head=4, vocab_size=500, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision("resnet18"), (8, 3, 64, 64)),
    "mobilenet_v3_small": (lambda: torchvision("mobilenet_v3_small"), (8, 3, 64, 64)),
    "vit_tiny": (lambda: timm("vit_tiny_patch16_224", img_size=64), (8, 3, 64, 64)),
    "gpt2": (gpt2, (8, 32)),
    "mobilenet_v2": (lambda: torchvision("mobilenet_v2"), (8, 3, 64, 64)),
    "convnext": (lambda: timm("convnext_atto"), (8, 3, 64, 64)),
    "mixer": (lambda: timm("mixer_s32_224"), (4, 3, 224, 224)),
    "skresnet": (lambda: timm("skresnet18"), (8, 3, 64, 64)),
}


def logits(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else output.logits
    return found.reshape(-1, found.shape[-1])


@pytest.mark.parametrize("name", MODELS)
def test_no_warning(name: str) -> None:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model = build()

    def batch() -> Tensor:
        return torch.randn(shape) if len(shape) > 2 else torch.randint(500, shape)

    data = [batch() for _ in range(3)]
    assert loud(model, data) == []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    for _ in range(20):
        scores = logits(model(batch()))
        loss = F.cross_entropy(scores, torch.randint(scores.shape[-1], (len(scores),)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loud(model, data) == []


def loud(model: nn.Module, data: list[Tensor]) -> list[tuple[str, str]]:
    report = normdoctor.check(model, data[0], data=data, select=RULES)
    assert report.counts().keys() <= {"passed", "noted", "failed"}
    return [(finding.code, finding.message) for finding in report.findings if finding.severity != "info"]
