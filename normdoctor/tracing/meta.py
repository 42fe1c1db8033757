"""Running calls where tensors without data (meta) meet tensors with values (CPU).

The model's tensors are on meta, but what a forward builds for itself (positions, masks, ones and
zeros) is cheap and known, so it is kept with values on the CPU: `if mask.all()` then has an answer.
Where the two meet in one call, the ones with values give theirs up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

#: Above this number of elements a constant is not worth its values.
MAX_CONSTANT = 1 << 22

#: Factories whose values are known without running the model.
FACTORIES = frozenset(
    "ones zeros full arange eye linspace tensor as_tensor tril_indices triu_indices scalar_tensor "
    "ones_like zeros_like full_like new_ones new_zeros new_full new_tensor to".split()
)

_MOVES = frozenset(("to", "cpu", "cuda", "type", "type_as", "copy_", "new_tensor"))


def on_meta(value: Any) -> bool:
    """Is it a tensor without data?"""
    return isinstance(value, torch.Tensor) and value.device.type == "meta"


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def mixed(args: Any, kwargs: Any, module: nn.Module | None = None) -> bool:
    """Do tensors with and without data meet, or is one without data asked to leave meta?"""
    kinds = {tensor.device.type == "meta" for tensor in (*tensors(args), *tensors(kwargs))}
    if module is not None:
        kinds |= {tensor.device.type == "meta" for tensor in module.parameters()}
    return len(kinds) > 1


def constant(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a factory that was asked for a meta tensor, with values on the CPU.

    None where the call is no such factory, or its result would be large.
    """
    if name == "to":
        return _kept(args, kwargs)
    device = kwargs.get("device")
    if name.endswith("_like") or name.startswith("new_"):
        if not (args and on_meta(args[0])) or (device is not None and torch.device(device).type != "meta"):
            return None
    elif device is None or torch.device(device).type != "meta":
        return None
    if any(True for _ in tensors(args[1:])):
        return None
    shape = func(*args, **kwargs)
    if shape.numel() > MAX_CONSTANT:
        return shape
    if name.endswith("_like") or name.startswith("new_"):
        fill = name.removesuffix("_like").removeprefix("new_")
        if fill == "tensor":
            return torch.tensor(args[1], dtype=shape.dtype)
        if fill == "full":
            value = kwargs.get("fill_value", args[-1])
            return torch.full(shape.shape, value, dtype=shape.dtype)
        return getattr(torch, fill)(shape.shape, dtype=shape.dtype)
    return func(*args, **{**kwargs, "device": "cpu"})


def _kept(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`mask.to(x.device)`, where x has no data: the mask keeps its values."""
    if on_meta(args[0]) or args[0].numel() > MAX_CONSTANT:
        return None
    if len(args) > 1 and on_meta(args[1]):
        return args[0].to(dtype=args[1].dtype)

    def here(value: Any) -> Any:
        away = isinstance(value, torch.device | str) and torch.device(value).type == "meta"
        return torch.device("cpu") if away else value

    given = tuple(here(value) for value in args[1:]), {key: here(value) for key, value in kwargs.items()}
    changed = any(a is not b for a, b in zip(args[1:], given[0], strict=True))
    changed = changed or any(kwargs[key] is not given[1][key] for key in kwargs)
    return args[0].to(*given[0], **given[1]) if changed else None


@contextlib.contextmanager
def light_layers() -> Iterator[None]:
    """Keep layers to shapes on meta whose Python decompositions take longer than all others together.

    Batch norm goes through a dozen pointwise calls there, a recurrent layer through as many at each step.
    """
    recurrent = ("lstm", "gru", "rnn_tanh", "rnn_relu")
    batch_norm = torch.batch_norm
    torch.batch_norm = _light_batch_norm(batch_norm)
    for name in recurrent:
        setattr(torch._VF, name, _light_recurrent(getattr(torch._VF, name)))
    try:
        yield
    finally:
        torch.batch_norm = batch_norm
        for name in recurrent:
            delattr(torch._VF, name)  # torch looks these up where they are missing


def _light_recurrent(original: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrent layer's call: `(input, hx, weights, ...)`, or `(data, batch_sizes, hx, weights, ...)`."""

    def recurrent(input: torch.Tensor, *args: Any) -> Any:
        packed = isinstance(args[2], tuple | list)
        if not on_meta(input) or torch._C._is_torch_function_mode_enabled():
            return original(input, *args)
        hx, bidirectional = (args[1], args[7]) if packed else (args[0], args[6])
        states = hx if isinstance(hx, tuple | list) else (hx,)
        output = input.new_empty((*input.shape[:-1], states[0].shape[-1] * (2 if bidirectional else 1)))
        return output, *(torch.empty_like(state) for state in states)

    return recurrent


def _light_batch_norm(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def batch_norm(
        input: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        *settings: Any,
    ) -> torch.Tensor:
        given = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
        if not on_meta(input) or torch._C._is_torch_function_mode_enabled():
            return original(input, *given.values(), *settings)
        for name, tensor in given.items():
            if tensor is not None and tensor.numel() != input.shape[1]:
                raise RuntimeError(
                    f"{name} should contain {input.shape[1]} elements not {tensor.numel()}"
                )  # in torch's words
        return torch.add(input, 0)

    return batch_norm


def retry(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a call again, all of it on meta; raises what it raises there."""
    if name in _MOVES and args and on_meta(args[0]):
        if name in ("cpu", "cuda"):
            return args[0]
        with contextlib.suppress(RuntimeError, TypeError):
            return func(*_devices_moved(args), **_devices_moved(kwargs))
    if writes(name) and isinstance(args[0], torch.Tensor) and not on_meta(args[0]):
        # An in-place call writes unknown values into it: it stays the same object.
        torch.utils.swap_tensors(args[0], torch.empty_like(args[0], device="meta"))  # type: ignore[no-untyped-call]
    if "grouped_mm" in name:  # the meta kernel knows bfloat16 only; shapes do not depend on it
        first = args[0]
        given = [one.bfloat16() if one.is_floating_point() else one for one in args[:2]]
        return func(*moved(given), *moved(args[2:]), **moved(kwargs)).to(first.dtype)
    return func(*moved(args), **moved(kwargs))


def writes(name: str) -> bool:
    """Does a call of this name write into its first argument?"""
    if name.startswith("__"):
        return name == "__setitem__" or (
            name[2] == "i" and name not in ("__int__", "__invert__", "__index__", "__iter__")
        )
    return name.endswith("_")


def moved(value: Any) -> Any:
    """The same value with every tensor on meta."""
    if isinstance(value, torch.Tensor):
        return value if value.device.type == "meta" else value.to("meta")
    if isinstance(value, dict):
        return {key: moved(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(item) for item in value)
    return value


def filled(value: Any) -> Any:
    """The same value with zeros in place of every tensor without data."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value, device="cpu") if on_meta(value) else value
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(filled(item) for item in value)
    return value


def _devices_moved(value: Any) -> Any:
    if isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda")):
        return torch.device("meta")
    if isinstance(value, dict):
        return {key: _devices_moved(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(_devices_moved(item) for item in value)
    return moved(value)
