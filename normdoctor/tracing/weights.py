"""Statistics of parameters and buffers, computed where they live and in bounded memory."""

from __future__ import annotations

import torch

from normdoctor.facts import WeightFact
from normdoctor.tracing.state import Inventory

CHUNK = 1 << 24  # elements looked at in one go: bounds the memory that a half-precision copy takes


def weight_facts(parts: Inventory, *, filled: bool) -> dict[str, WeightFact]:
    """Statistics by name, for every floating tensor that has values.

    `filled` says that the model was built under torch's deterministic fill, so that NaN marks memory
    that nobody wrote.
    """
    found = {}
    with torch.no_grad():
        for entry in parts.tensors.values():
            tensor = entry.tensor
            if tensor.device.type != "meta" and tensor.is_floating_point() and tensor.numel():
                found[entry.name] = describe(tensor.detach(), filled=filled)
    return found


def describe(tensor: torch.Tensor, *, filled: bool = False) -> WeightFact:
    """Count, range, mean and (population) standard deviation of a tensor's values."""
    flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.contiguous().view(-1)
    count = flat.numel()
    low, high, mean, second = float("inf"), float("-inf"), 0.0, 0.0
    seen = 0
    for start in range(0, count, CHUNK):
        part = flat[start : start + CHUNK]
        part = part if part.dtype in (torch.float32, torch.float64) else part.float()
        least, most = (float(value) for value in torch.aminmax(part))
        variance, average = (float(value) for value in torch.var_mean(part, correction=0))
        if not (least == least and abs(least) != float("inf") and abs(most) != float("inf")):
            unwritten = filled and bool(torch.isnan(part).any())
            return WeightFact(
                count=count,
                finite=False,
                minimum=0.0,
                maximum=0.0,
                mean=0.0,
                std=0.0,
                uninitialized=unwritten,
            )
        # Chan, Golub and LeVeque (1983): merging the moments of two parts.
        size = part.numel()
        delta = average - mean
        total = seen + size
        second += variance * size + delta * delta * seen * size / total
        mean += delta * size / total
        seen = total
        low, high = min(low, least), max(high, most)
    std = 0.0 if low == high else (second / count) ** 0.5
    return WeightFact(count=count, finite=True, minimum=low, maximum=high, mean=mean, std=std)
