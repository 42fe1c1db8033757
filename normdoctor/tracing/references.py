"""The model beside another one of the same names: the online model of a copy or moving average."""

from __future__ import annotations

import torch
from torch import nn

from normdoctor.facts import ReferenceFact, TensorComparison
from normdoctor.loading.state import Inventory, TensorEntry, inventory
from normdoctor.loading.wrappers import unwrapped
from normdoctor.tracing.weights import CHUNK, describe

#: Prefixes that wrappers put in front of every name, in the model or in the reference.
_PREFIXES = ("module.", "ema_model.", "_orig_mod.", "model.")


def reference_fact(parts: Inventory, reference: nn.Module) -> ReferenceFact:
    """Compare every parameter and buffer with the one of the same name in the reference."""
    other = inventory(unwrapped(reference)).tensors
    tensors: dict[str, TensorComparison] = {}
    missing: list[str] = []
    for entry in parts.tensors.values():
        if entry.kind == "attribute" or nn.parameter.is_lazy(entry.tensor):
            continue
        beside = _of_same_name(entry.name, other)
        if beside is None:
            missing.append(entry.name)
        else:
            tensors[entry.name] = compare(entry.tensor, beside.tensor)
    return ReferenceFact(tensors=tensors, missing=tuple(missing))


def _of_same_name(name: str, other: dict[str, TensorEntry]) -> TensorEntry | None:
    if name in other:
        return other[name]
    for prefix in _PREFIXES:
        if (found := other.get(prefix + name)) is not None:
            return found
        if name.startswith(prefix) and (found := other.get(name.removeprefix(prefix))) is not None:
            return found
    return None


def compare(tensor: torch.Tensor, reference: torch.Tensor) -> TensorComparison:
    """Are two tensors equal, and if not, how far apart; in bounded memory, where the first one lives."""
    reference = reference.detach()
    known = reference.device.type != "meta" and reference.layout == torch.strided
    stated = describe(reference) if known and reference.is_floating_point() and reference.numel() else None
    if tensor is reference:
        return TensorComparison(equal=True, distance=0.0, reference=stated)
    if tensor.shape != reference.shape or not known or tensor.device.type == "meta":
        return TensorComparison(equal=False, reference=stated)
    distance = 0.0
    with torch.no_grad():
        ours = torch.split(tensor.detach().reshape(-1), CHUNK)
        theirs = torch.split(reference.reshape(-1), CHUNK)
        for one, two in zip(ours, theirs, strict=True):
            if one.numel():
                # In double precision; NaN beside NaN counts as equal.
                apart = (one.double() - two.to(one.device).double()).abs()
                same = one.isnan() & two.to(one.device).isnan()
                distance = max(distance, float(apart.masked_fill(same, 0.0).max()))
    return TensorComparison(equal=distance == 0.0, distance=distance, reference=stated)
