"""What a watch holds, on models of the usual size: below 2 % of the parameters plus 16 MiB, at any step."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import normdoctor

pytestmark = pytest.mark.zoo

SIZES = {"resnet50": (2, 3, 64, 64), "densenet121": (2, 3, 64, 64), "vit_small_patch16_224": (1, 3, 224, 224)}


def held() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, nn.Parameter) and one.layout == torch.strided:
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(found.values())


@pytest.mark.parametrize("name", SIZES)
def test_memory_of_a_watch(name: str) -> None:
    torch.manual_seed(0)
    model = pytest.importorskip("timm").create_model(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train() -> None:
        optimizer.zero_grad()
        model(torch.randn(SIZES[name])).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    train()
    before, most = held(), 0
    with normdoctor.watch(model, optimizer, every=1, on_finding=lambda finding: None) as w:
        for _ in range(26):  # judged after 3, 6, 12 and 24 looks
            train()
            w.step()
            most = max(most, held() - before)
    assert w.observed >= 20
    parameters = sum(one.numel() * one.element_size() for one in model.parameters())
    assert 2**20 < most <= 0.02 * parameters + 16 * 2**20
