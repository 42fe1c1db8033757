"""Example inputs that a file or a model declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from normdoctor.loading.example import ExampleInputs

#: Module-level names that hold example inputs.
_NAMES = ("example_inputs", "example_input", "inputs")


def declared_in_file(namespace: dict[str, Any], names: tuple[str, ...] = _NAMES) -> ExampleInputs | None:
    """`example_inputs` or `inputs` at the top level: a tensor, a tuple of arguments, or a dict."""
    for name in names:
        if name in namespace:
            found = as_inputs(namespace[name], f"`{name}` of the file")
            if found is not None:
                return found
    return None


def declared_by_model(model: nn.Module) -> ExampleInputs | None:
    """What the model itself offers: `dummy_inputs`, `example_input_array`, `default_cfg`."""
    for name in ("dummy_inputs", "example_input_array"):
        try:
            value = getattr(model, name, None)
        except Exception:  # a property of the user's may need anything
            continue
        if value is not None and (found := as_inputs(value, f"the model's `{name}`")) is not None:
            return found
    for name in ("default_cfg", "pretrained_cfg"):
        try:
            config = getattr(model, name, None)
        except Exception:
            continue
        size = (
            config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
        )
        if isinstance(size, tuple | list) and size and all(isinstance(length, int) for length in size):
            return ExampleInputs((torch.zeros(2, *size),), {}, "declared", f"the model's `{name}`")
    return None


def as_inputs(value: Any, note: str) -> ExampleInputs | None:
    """Read a tensor, a tuple or list of arguments, or a dict of keyword arguments."""
    if isinstance(value, torch.Tensor):
        return ExampleInputs((value,), {}, "declared", note)
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        return ExampleInputs((), dict(value), "declared", note) if _has_tensor(value) else None
    if isinstance(value, tuple | list) and value and _has_tensor(value):
        return ExampleInputs(tuple(value), {}, "declared", note)
    return None


def _has_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_tensor(item) for item in value.values())
    if isinstance(value, tuple | list):
        return any(_has_tensor(item) for item in value)
    return isinstance(value, torch.Tensor)
