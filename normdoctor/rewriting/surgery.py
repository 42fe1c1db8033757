"""What hangs on a layer, handed over to the one that takes its place; and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: The dicts of hooks of a module. They are handed over as objects, so that handles still remove from them.
HOOKS = tuple(
    name for name in vars(nn.Module()) if name.endswith(("_hooks", "_with_kwargs", "_always_called"))
)
ORIGIN = "_normdoctor_origin"
_DICTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class Origin:
    """What a layer was before it was converted: its class, its settings, and tensors that it had alone."""

    kind: type[nn.Module]
    settings: dict[str, Any]
    parameters: dict[str, nn.Parameter | None]
    buffers: dict[str, Tensor | None]
    passing: frozenset[str]
    added: frozenset[str]
    """Attributes that only the new layer has: they go when it becomes the old one again."""


def origin_of(module: nn.Module) -> Origin | None:
    """What the module was before it was converted, None where it was not or nothing leads back."""
    found = vars(module).get(ORIGIN)
    return found if isinstance(found, Origin) else None


def note_origin(old: nn.Module, new: nn.Module) -> None:
    """Leave on `new` what leads back to `old`."""
    settings = {key: value for key, value in vars(old).items() if key not in (*HOOKS, *_DICTS, ORIGIN)}
    vars(new)[ORIGIN] = Origin(
        type(old),
        settings,
        dict(old._parameters),
        dict(old._buffers),
        frozenset(old._non_persistent_buffers_set),
        frozenset(set(vars(new)) - set(vars(old))),
    )


def returned(module: nn.Module, origin: Origin) -> nn.Module:
    """The layer that `module` was, with the values that it has now.

    Parameters are the same objects as before, unless they were moved or cast in the meantime.
    """
    old = origin.kind.__new__(origin.kind)
    nn.Module.__init__(old)
    vars(old).update(origin.settings)
    now: dict[str, Tensor | None] = {**module._buffers, **module._parameters}
    like = next((value for value in now.values() if value is not None), None)
    for name, was in origin.parameters.items():
        old._parameters[name] = _parameter(now[name], was) if name in now else was
    for name, buffer in origin.buffers.items():
        value = now.get(name, buffer)
        moved = value is not None and name not in now and like is not None
        old._buffers[name] = (
            value.to(like.device) if moved and value is not None and like is not None else value
        )
    old._non_persistent_buffers_set = set(origin.passing)
    return old


def _parameter(now: Tensor | None, was: nn.Parameter | None) -> nn.Parameter | None:
    if now is None or isinstance(now, nn.Parameter):
        return now
    if was is not None and _same_memory(now, was):
        return was
    return nn.Parameter(now.detach().clone(), requires_grad=was is None or was.requires_grad)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        return False
    return a.is_meta or a.data_ptr() == b.data_ptr()


def carry_over(old: nn.Module, new: nn.Module, own_state: frozenset[str]) -> None:
    """Give `new` what is not the layer itself: parameters, hooks, mode, attributes of the user's.

    Parameters of the same name and shape are the same objects afterwards, so an optimizer of the old model
    trains the new one. `own_state` names what must not outlive the old layer.
    """
    for name, parameter in old._parameters.items():
        known = new._parameters.get(name)
        taken = name in new._buffers or name in own_state
        if not taken and (known is None or parameter is None or known.shape == parameter.shape):
            new._parameters[name] = parameter
    for name, buffer in old._buffers.items():
        if name not in own_state and name not in new._parameters:
            new.register_buffer(name, buffer, persistent=name not in old._non_persistent_buffers_set)
    count = new._buffers.get("num_batches_tracked")
    if count is not None and count.is_meta and "num_batches_tracked" not in old._buffers:
        new._buffers["num_batches_tracked"] = None  # somebody took it from the old layer
    for name, child in old._modules.items():
        if name not in own_state:
            new._modules.setdefault(name, child)
    for name, value in vars(old).items():
        if name in HOOKS or name in ("training", "_is_full_backward_hook"):
            vars(new)[name] = value
        elif name not in own_state and name != ORIGIN:
            vars(new).setdefault(name, value)


def paths_of(model: nn.Module) -> dict[int, list[str]]:
    """Every path of each module object: several where it is shared."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(path)
    return found


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def all_hooks(module: nn.Module, *kinds: str) -> int:
    """How many hooks of these kinds (`forward`, `forward_pre`, `backward`, ...) a module has."""
    return sum(len(vars(module).get(f"_{kind}_hooks") or ()) for kind in kinds)


def wide(tensor: Tensor | None, default: float, like: Tensor) -> Tensor:
    """Values in float64 (float32 on MPS), a constant where there are none."""
    kind = torch.float32 if like.device.type == "mps" else torch.float64
    if tensor is None:
        return torch.full((like.shape[0],), default, dtype=kind, device=like.device)
    return tensor.detach().to(kind)
