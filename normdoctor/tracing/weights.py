"""Statistics of parameters and buffers, computed where they live and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from msgspec.structs import replace

from normdoctor.facts import WeightFact
from normdoctor.loading.origins import Truncation
from normdoctor.loading.state import Inventory, join
from normdoctor.tracing.identify import MOMENTS, identify, sample_of
from normdoctor.tracing.slices import effective_spectral_norms, equal_slices

CHUNK = 1 << 24  # elements looked at in one go: bounds the memory that a half-precision copy takes
LISTED = 16384  # the values of tensors with one axis and no more elements are listed


def weight_facts(
    parts: Inventory, *, filled: bool, truncations: Mapping[int, Truncation] | None = None
) -> dict[str, WeightFact] | None:
    """Statistics by name, for every floating tensor that has values; None where parameters have none.

    A model with parameters on meta waits for its weights: what else it holds was not initialized either.
    `filled` says that the model was built under torch's deterministic fill, so that NaN marks memory
    that nobody wrote. `truncations` holds what truncated normals were drawn with, by the address of their
    memory.
    """
    if any(e.tensor.is_meta and isinstance(e.tensor, torch.nn.Parameter) for e in parts.tensors.values()):
        return None
    found = {}
    with torch.no_grad():
        for entry in parts.tensors.values():
            tensor = entry.tensor
            dense = tensor.layout == torch.strided and tensor.device.type != "meta"
            if dense and tensor.is_floating_point() and tensor.numel():
                fact = describe(tensor.detach(), filled=filled)
                if drawn := (truncations or {}).get(tensor.data_ptr()):
                    fact = _truncated(fact, tensor, drawn)
                found[entry.name] = fact
        for path, held in parts.modules.items():
            for name, norm in effective_spectral_norms(held.module).items():
                full = join(path, name)
                if full in found:
                    found[full] = replace(found[full], spectral_norm=norm)
    return found


def _truncated(fact: WeightFact, tensor: torch.Tensor, drawn: Truncation) -> WeightFact:
    """Add the bounds of the truncated normal, if the values are still those that were drawn."""
    same = fact.finite and drawn.std > 0 and tuple(tensor.shape) == drawn.shape
    if not same or not 0.3 < (fact.std or 0.0) / drawn.std < 1.3:
        return fact
    bounds = ((drawn.low - drawn.mean) / drawn.std, (drawn.high - drawn.mean) / drawn.std)
    return replace(fact, truncation=bounds)


def describe(tensor: torch.Tensor, *, filled: bool = False) -> WeightFact:
    """Range, moments, initialization and equal slices of a tensor's values."""
    fact, sample = _statistics(tensor, filled=filled)
    if not fact.finite:
        return fact
    fields: dict[str, Any] = {}
    if tensor.dim() == 1 and fact.count <= LISTED:
        constant = fact.minimum == fact.maximum
        fields["values"] = (fact.minimum,) * fact.count if constant else tuple(tensor.tolist())
    if tensor.dim() >= 2 and fact.minimum != fact.maximum:
        fields["duplicate_rows"], fields["zero_rows"] = equal_slices(tensor, 0)
        fields["duplicate_columns"], _ = equal_slices(tensor, 1)
    return replace(fact, init=identify(tensor, fact, sample), **fields)


def _statistics(tensor: torch.Tensor, *, filled: bool) -> tuple[WeightFact, torch.Tensor]:
    """The exact range of all values, and the moments of at most `MOMENTS` of them, with the sample."""
    count, low, high = tensor.numel(), math.inf, -math.inf
    for part in _parts(tensor):
        least, most = (float(value) for value in torch.aminmax(part))
        low, high = min(low, least), max(high, most)
        if not (math.isfinite(least) and math.isfinite(most)):
            unwritten = filled and bool(torch.isnan(part).any())
            fact = WeightFact(
                count=count, finite=False, minimum=0.0, maximum=0.0, mean=0.0, std=0.0,
                uninitialized=unwritten,
            )  # fmt: skip
            return fact, tensor.new_empty(0)
    if low == high:
        fact = WeightFact(count=count, finite=True, minimum=low, maximum=high, mean=low, std=0.0)
        return fact, tensor.new_empty(0)
    values = sample_of(tensor, MOMENTS)
    mean, variance = _moments(values)
    fact = WeightFact(count=count, finite=True, minimum=low, maximum=high, mean=mean, std=variance**0.5)
    return fact, values


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """All values in pieces of bounded size, without a copy of the whole, in whatever order they lie."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
    laid = tensor.permute(order)
    if laid.is_contiguous():
        yield from torch.split(laid.view(-1), CHUNK)
    elif laid.numel() <= CHUNK or laid.shape[0] == 1:
        yield laid.reshape(-1)
    else:
        rows = max(1, CHUNK * laid.shape[0] // laid.numel())
        for piece in torch.split(laid, rows):
            yield from _parts(piece)


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
