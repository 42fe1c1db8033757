"""Weights of a checkpoint in place of the model's own, for the time of a check; nothing is unpickled.

Files are read with `torch.load(weights_only=True)` or safetensors. A pickle that wants to build other
objects than tensors and plain containers is refused.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normdoctor.errors import UsageError, brief, text_of
from normdoctor.loading.state import Snapshot, inventory

#: Keys under which training scripts and frameworks keep the state dict, the likeliest first.
_HOLDERS = (
    "state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "model_state",
    "state_dict_ema", "model_ema", "ema", "generator", "student", "teacher",
)  # fmt: skip
_SHOWN = 6
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file; raises UsageError for anything else."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise UsageError(f"weights: {path}: {kind}", hint=f"Expected a file ({', '.join(_SUFFIXES)}).")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    found = _state_dict(loaded)
    if found is None:
        raise UsageError(
            f"weights: {path} holds {_described(loaded)}: expected a state dict",
            hint="Save one with torch.save(model.state_dict(), path).",
        )
    return found


def _read_torch(path: Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # written by a torch before 1.6, which cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", text_of(error))
        if wanted is None:
            raise UsageError(
                f"weights: {path} cannot be read as a checkpoint",
                hint="Expected what torch.save wrote, or a .safetensors file.",
            ) from None
        raise UsageError(
            f"weights: {path} was refused: it asks for `{wanted[1]}`, and building that could run any code",
            hint="Save the weights alone: torch.save(model.state_dict(), path), or as safetensors.",
        ) from None
    except Exception as error:
        # The rest of torch's text tells how to unpickle it all the same.
        reason = brief(error).partition(" In PyTorch 2.6")[0].removesuffix(".")
        raise UsageError(
            f"weights: {path} cannot be read as a checkpoint: {reason}",
            hint="Expected what torch.save wrote, or a .safetensors file.",
        ) from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UsageError(
            f"weights: {path} needs the library safetensors, which is not installed",
            hint='pip install "normdoctor[safetensors]"',
        ) from None
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"weights: {path} is no safetensors file: {brief(error)}") from error


def _state_dict(value: Any, depth: int = 0) -> dict[str, torch.Tensor] | None:
    """The mapping from names to tensors, looked for inside what checkpoints wrap around it."""
    if not isinstance(value, Mapping):
        return None
    for key in _HOLDERS:
        if depth < 2 and isinstance(value.get(key), Mapping):
            found = _state_dict(value[key], depth + 1)
            if found:
                return found
    tensors = {key: item for key, item in value.items() if isinstance(item, torch.Tensor)}
    return tensors if tensors and all(isinstance(key, str) for key in tensors) else None


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in list(value)[:_SHOWN])
        return f"a dict without tensors (its keys: {keys or 'none'})"
    return f"an object of type {type(value).__name__}"


def fitted(state: Mapping[str, torch.Tensor], known: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The state dict under the model's own names, and the prefix that was taken off (`module.`)."""
    prefixes: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for count in range(min(len(parts), 4)):
            if ".".join(parts[count:]) in known:
                prefixes["".join(f"{part}." for part in parts[:count])] += 1
    if not prefixes:
        return dict(state), ""
    prefix = max(prefixes, key=lambda one: (prefixes[one], -len(one)))
    if not prefix:
        return dict(state), ""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, prefix


def load_into(model: nn.Module, path: Path) -> list[str]:
    """Load a checkpoint into a model; returns notes on what did not match.

    Missing and unexpected keys are notes; shapes that differ, and a file of which nothing matches,
    are errors.
    """
    known = model.state_dict()
    state, prefix = fitted(read_checkpoint(path), known)
    wrong = [
        f"{key}: {tuple(value.shape)} in the file, {tuple(known[key].shape)} in the model"
        for key, value in state.items()
        if isinstance(known.get(key), torch.Tensor)
        and not nn.parameter.is_lazy(known[key])
        and value.shape != known[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UsageError(
            f"weights: {path} does not fit the model: {len(wrong)} shapes differ: "
            + "; ".join(wrong[:_SHOWN])
            + more,
            hint="Build the model with the arguments that it was trained with.",
        )
    if not set(state) & set(known):
        raise UsageError(
            f"weights: {path} does not fit the model: none of its {len(state)} keys is one of the model's",
            hint=f"The file has {_listed(list(state))}; the model has {_listed(list(known))}.",
        )
    meta = any(tensor.device.type == "meta" for tensor in known.values() if isinstance(tensor, torch.Tensor))
    try:
        result = model.load_state_dict(state, strict=False, assign=meta)
    except Exception as error:  # also of hooks of the user's
        raise UsageError(f"weights: {path} cannot be loaded: {brief(error)}") from error
    notes = [f"weights loaded from {path}" + (f" (without the prefix `{prefix}`)" if prefix else "")]
    for what, keys in (("missing in", result.missing_keys), ("unexpected in", result.unexpected_keys)):
        if keys:
            notes.append(f"{len(keys)} keys are {what} {path.name}: {_listed(keys)}")
    return notes


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


@contextmanager
def loaded(model: nn.Module, path: Path | None) -> Iterator[list[str]]:
    """Put the weights of a file into the model inside the context; afterwards it is as it was."""
    if path is None:
        yield []
        return
    parts = inventory(model)
    snapshot = Snapshot([entry.module for entry in parts.modules.values()])
    kept = [
        (entry.tensor, entry.tensor.data)
        for entry in parts.tensors.values()
        if entry.kind != "attribute" and not nn.parameter.is_lazy(entry.tensor)
    ]
    try:
        for tensor, data in kept:
            tensor.data = data.clone()
        yield load_into(model, path)
    finally:
        snapshot.restore()
        for tensor, data in kept:
            tensor.data = data
