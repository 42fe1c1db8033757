"""Wrappers around a user's model: torch.compile, DataParallel, DistributedDataParallel, FSDP."""

from __future__ import annotations

from torch import nn

_PARALLEL = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")


def wrapped(module: nn.Module) -> nn.Module | None:
    """The module inside a wrapper; None when it is none."""
    kind = type(module).__name__
    inner = getattr(module, "_orig_mod", None) if kind == "OptimizedModule" else None
    if kind in _PARALLEL:
        inner = getattr(module, "module", None)
    return inner if isinstance(inner, nn.Module) else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's model inside all wrappers."""
    while (inner := wrapped(model)) is not None:
        model = inner
    return model
