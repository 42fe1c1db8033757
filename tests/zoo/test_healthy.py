"""Healthy models under all measured rules: no warning with random weights, in training, and behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor
from normdoctor.report import Report

pytestmark = pytest.mark.zoo

MEASURED = ["ND6", "ND7", "ND8"]
STEPS = 20


def torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None, num_classes=10)
    return model


def vit() -> nn.Module:
    model: nn.Module = pytest.importorskip("timm").create_model(
        "vit_tiny_patch16_224", img_size=64, num_classes=10
    )
    return model


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    # The small one but for its vocabulary and the number of its layers.
    config = transformers.GPT2Config(vocab_size=200, n_layer=3, bos_token_id=0, eos_token_id=0)
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


def images(size: int) -> tuple[Tensor, Tensor]:
    """Scikit-learn's digits as images of three channels, scaled."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images, dtype=torch.float32)[order].unsqueeze(1)
    x = F.interpolate((x - x.mean()) / x.std(), size=size, mode="bilinear")
    return x.expand(-1, 3, -1, -1).contiguous(), torch.tensor(digits.target)[order]


def text() -> tuple[Tensor, Tensor]:
    """Sentences of twenty words of four letters."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(64, (20, 4), generator=generator)
    x = words[torch.randint(20, (1024, 6), generator=generator)].flatten(1)
    return x, x


#: name -> model, data, batch size
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], int]] = {
    "resnet18": (lambda: torchvision("resnet18"), lambda: images(32), 64),
    "mobilenet_v3_small": (lambda: torchvision("mobilenet_v3_small"), lambda: images(48), 64),
    "vit_tiny": (vit, lambda: images(64), 16),
    "gpt2": (gpt2, text, 16),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}


def loss_of(output: Any, x: Tensor, y: Tensor) -> Tensor:
    if isinstance(output, Tensor):
        return F.cross_entropy(output, y)
    return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def loud(report: Report) -> list[tuple[str, str]]:
    assert not report.problems
    assert "error" not in report.counts()
    return [(one.code, one.message) for one in report.findings if one.severity != "info"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_silent_before_in_and_after_a_training(name: str, kind: str) -> None:
    build, load, size = MODELS[name]
    x, y = load()
    torch.manual_seed(0)
    model = build()
    data = list(x[: 4 * size].split(size))
    if kind == "sgd":  # they start with the same weights
        assert loud(normdoctor.check(model, data[0], data=data, select=MEASURED)) == []
    optimizer = OPTIMIZERS[kind](model.parameters())
    with normdoctor.watch(model, optimizer, every=1, on_finding="ignore") as watch:
        for step in range(STEPS):
            start = step * size % (len(x) - size)
            inputs, targets = x[start : start + size], y[start : start + size]
            loss = loss_of(model(inputs), inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    assert watch.observed == STEPS
    assert loud(watch.report()) == []
    assert loud(normdoctor.check(model, data[0], data=data, select=MEASURED)) == []
    # With its momentum of 0.01, twenty steps leave the running statistics 82 % of their initial values.
    report = normdoctor.check(model.eval(), data[0], data=data, select=MEASURED)
    assert loud(report) == []
    assert [one.evidence["batches_tracked"] for one in report.findings if one.code == "ND703"] == (
        [STEPS] if name == "mobilenet_v3_small" else []
    )
