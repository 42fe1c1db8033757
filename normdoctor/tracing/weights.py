"""Statistics of parameters and buffers, computed where they live and in bounded memory."""

from __future__ import annotations

import math

import torch

from normdoctor.facts import WeightFact
from normdoctor.loading.state import Inventory

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
            dense = tensor.layout == torch.strided and tensor.device.type != "meta"
            if dense and tensor.is_floating_point() and tensor.numel():
                found[entry.name] = describe(tensor.detach(), filled=filled)
    return found


def describe(tensor: torch.Tensor, *, filled: bool = False) -> WeightFact:
    """Count, range, mean and (population) standard deviation of a tensor's values."""
    flat = tensor.contiguous().view(-1)
    count = flat.numel()
    low, high, mean, second, seen = float("inf"), float("-inf"), 0.0, 0.0, 0
    for part in torch.split(flat, CHUNK):
        values = part if part.dtype in (torch.float32, torch.float64) else part.float()
        least, most = (float(value) for value in torch.aminmax(values))
        if not (math.isfinite(least) and math.isfinite(most)):
            unwritten = filled and bool(torch.isnan(values).any())
            return WeightFact(
                count=count,
                finite=False,
                minimum=0.0,
                maximum=0.0,
                mean=0.0,
                std=0.0,
                uninitialized=unwritten,
            )
        size = values.numel()
        average, spread = _moments(values)
        # Chan, Golub and LeVeque (1983): merging the moments of two parts.
        delta, total = average - mean, seen + size
        second += spread * size + delta * delta * seen * size / total
        mean += delta * size / total
        seen = total
        low, high = min(low, least), max(high, most)
    std = 0.0 if low == high else (second / count) ** 0.5
    return WeightFact(count=count, finite=True, minimum=low, maximum=high, mean=mean, std=std)


def _moments(values: torch.Tensor) -> tuple[float, float]:
    """Mean and population variance.

    The mean and the norm are each one fast pass; `torch.var_mean` is six times slower on the CPU and
    needed only where the mean outweighs the spread, so that their difference loses digits.
    """
    mean = float(values.mean(dtype=values.dtype))
    square = float(torch.linalg.vector_norm(values)) ** 2 / values.numel()
    if mean * mean < 0.9 * square:
        return mean, square - mean * mean
    variance, mean_exact = torch.var_mean(values, correction=0)
    return float(mean_exact), float(variance)
