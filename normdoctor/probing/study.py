"""Questions that no look at a running forward answers: the model is run again, on a few of the batches."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from normdoctor.facts import Facts
    from normdoctor.probing.data import Arguments, Feed

#: How many batches are kept for studies.
KEPT = 4


@dataclass(frozen=True)
class Studied:
    """What a study is about: the model, the first batches, their source, and what is known already."""

    model: nn.Module
    calls: tuple[Arguments, ...]
    feed: Feed
    facts: Facts
    measured: Mapping[str, Any]


class Study(Protocol):
    """Answers one need of rules by runs of its own, in a sandbox, without gradients."""

    need: str

    def run(self, studied: Studied) -> dict[str, Any]:
        """The figures, by site."""


def run(model: nn.Module, call: Arguments) -> Any:
    """The model's output for one batch, with the same random numbers each time."""
    torch.manual_seed(0)
    args, kwargs = call
    return model(*args, **kwargs)


def part(model: nn.Module) -> None:
    """Let each SyncBatchNorm normalize what it gets by itself: other ranks need not have as many batches."""
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            # Our own layer adds a residual and takes an activation, also when it works alone.
            alone = getattr(type(module), "alone", _BatchNorm.forward)
            module.forward = MethodType(alone, module)  # type: ignore[method-assign]


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a structure of containers, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict) or hasattr(value, "to_tuple"):
        for item in value.values() if isinstance(value, dict) else value.to_tuple():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def replaced(value: Any, change: Any) -> Any:
    """The same structure with `change` applied to its tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: replaced(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [replaced(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def batch_size(call: Arguments) -> int | None:
    """How many samples a batch has: the first axis of all its tensors. None where they differ in it."""
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors(call)}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else None


def batch_first(facts: Facts) -> bool:
    """Does every input that was recorded lie with the batch along its first axis, and along no other?

    Inputs of a model that was not recorded count as such.
    """
    inputs = [node for node in facts.nodes if node.op == "placeholder" and node.axes]
    return all(node.axes[0] == "batch" and "batch" not in node.axes[1:] for node in inputs)
