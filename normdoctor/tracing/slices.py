"""Equal and empty slices of a weight, and the spectral norm that an old spectral_norm leaves."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm

#: More slices than this (embeddings) are not compared.
MOST = 1 << 16
#: Shorter slices may be equal by chance, in half precision sooner.
SHORTEST = {torch.float64: 2, torch.float32: 2}
_IN_HALF = 8
#: Slices compared in full at most.
_PAIRS = 4096
#: Weights of the values of a slice that are compared before whole slices are.
_FACTORS = (1.0, math.sqrt(2), math.sqrt(3), math.sqrt(5))


def equal_slices(tensor: torch.Tensor, axis: int) -> tuple[int, int]:
    """(slices along an axis that equal an earlier one, slices that are all zero); zero ones are not equal."""
    units = tensor.shape[axis]
    length = tensor.numel() // max(units, 1)
    if not 1 < units <= MOST or length < SHORTEST.get(tensor.dtype, _IN_HALF):
        return 0, 0
    moved = tensor.detach().movedim(axis, 0)
    first = set(_column(moved, 0).tolist())
    if len(first) == units and 0.0 not in first:
        return 0, 0
    keys = _keys(moved)
    ordered, order = keys.sort()
    return _verified(moved, ordered.tolist(), order.tolist())


def _keys(moved: torch.Tensor) -> torch.Tensor:
    """One number for each slice, from a few of its values; equal slices have equal numbers.

    Product and sum are separate operations, so that no slice is rounded differently from another.
    """
    keys = torch.zeros(moved.shape[0], dtype=torch.float64, device=moved.device)
    for number, factor in enumerate(_FACTORS):
        keys = keys + _column(moved, number).double() * factor
    return keys


def _column(moved: torch.Tensor, number: int) -> torch.Tensor:
    """One value of each slice."""
    shape = moved.shape[1:]
    rest = math.prod(shape)
    place = number * rest // len(_FACTORS) + rest // (2 * len(_FACTORS))
    column = moved
    for size in shape:
        rest //= size
        column = column.select(1, place // rest % size)
    return column


def _verified(moved: torch.Tensor, keys: list[float], order: list[int]) -> tuple[int, int]:
    """Compare the slices whose keys are equal in full."""
    equal = zero = compared = start = 0
    while start < len(keys):
        end = start + 1
        while end < len(keys) and keys[end] == keys[start]:
            end += 1
        if (end - start > 1 or keys[start] == 0) and compared < _PAIRS:
            distinct: list[torch.Tensor] = []
            for place in order[start:end]:
                compared += 1
                one = moved[place]
                if keys[start] == 0 and not bool(one.any()):
                    zero += 1
                elif any(torch.equal(one, other) for other in distinct[:8]):
                    equal += 1
                else:
                    distinct.append(one)
                if compared >= _PAIRS:
                    break
        start = end
    return equal, zero


def effective_spectral_norms(module: nn.Module) -> dict[str, float]:
    """Parameter to the spectral norm of the weight as eval uses it, for the old `spectral_norm`."""
    found = {}
    for hook in module._forward_pre_hooks.values():
        if not isinstance(hook, SpectralNorm):
            continue
        name = hook.name
        weight, u, v = (getattr(module, f"{name}_{part}", None) for part in ("orig", "u", "v"))
        if weight is None or u is None or v is None or weight.device.type == "meta":
            continue
        matrix = hook.reshape_weight_to_matrix(weight.detach()).float()
        sigma = float(torch.dot(u.float(), matrix.mv(v.float())))
        largest = _largest_singular_value(matrix, u.float())
        found[f"{name}_orig"] = largest / abs(sigma) if sigma else math.inf
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _largest_singular_value(matrix: torch.Tensor, start: torch.Tensor) -> float:
    """By power iteration, from u with a ramp added so that it is orthogonal to nothing by chance."""
    u = start + torch.linspace(0.01, 0.02, len(start), device=start.device)
    norm = 0.0
    for _ in range(50):
        v = nn.functional.normalize(matrix.t().mv(u), dim=0)
        product = matrix.mv(v)
        before, norm = norm, float(torch.linalg.vector_norm(product))
        u = product / max(norm, 1e-30)
        if abs(norm - before) < 1e-4 * norm:
            break
    return norm
