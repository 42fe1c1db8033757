"""Many ranks: what each of them observed, as if one process had seen all of it; and are they replicas?

Everything here is collective: under `torch.distributed` all ranks of the group have to call it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normdoctor.errors import NormDoctorError, UsageError, brief
from normdoctor.probing.gradientranks import joined, share_of
from normdoctor.probing.gradients import GradientCollector
from normdoctor.probing.hooks import Collector, to_host
from normdoctor.tracing.roles import kind_of_module

T = TypeVar("T")

#: A difference between ranks beyond this share of the largest value is one: replicas are bit-identical.
TOLERANCE = 1e-6


@runtime_checkable
class Joinable(Protocol):
    """A collector that can be sent to other ranks."""

    need: str

    def packed(self) -> Any:
        """All that it has collected, as plain data and tensors on the host."""

    def joined(self, parts: Sequence[Any]) -> Collector:
        """A collector of its kind that has collected what all the parts hold; itself stays as it is."""


def size() -> int:
    """How many ranks there are; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def demand_ranks() -> None:
    """Raise UsageError where there are no ranks to gather from."""
    if size() == 1:
        raise UsageError(
            "there is one process only: nothing to gather",
            hint="Start it with torchrun and call torch.distributed.init_process_group first.",
        )


def together(work: Callable[[], T]) -> T:
    """The result of `work` on this rank, once it is done on all; raises on all where it raises on one.

    So that no rank waits for one that will not come, what may fail is done in here, and what follows is not.
    """
    error: Exception | None = None
    try:
        found = work()
    except Exception as raised:  # the user's code, or a wrong argument on this rank
        error = raised
    told = gathered(
        None if error is None else (error.message if isinstance(error, NormDoctorError) else brief(error))
    )
    if error is not None:
        raise error
    for rank, message in enumerate(told):
        if message is not None:
            raise UsageError(f"rank {rank} could not take part: {message}")
    return found


def everywhere(
    collectors: Sequence[Collector], gradients: GradientCollector, model: nn.Module, broadcasts: bool | None
) -> dict[str, dict[str, Any]]:
    """The measurements of a watched training over all ranks; for `broadcasts` see `replicas`."""
    found = across(collectors)
    found |= joined(gathered(share_of(gradients)))
    found["ranks"] = replicas(model, broadcasts)
    return found


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, by rank."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def across(collectors: Sequence[Collector]) -> dict[str, dict[str, Any]]:
    """The figures of those collectors that can be joined, over what all ranks observed."""
    able = [one for one in collectors if isinstance(one, Joinable)]
    parts = gathered([one.packed() for one in able])
    whole = [one.joined([part[place] for part in parts]) for place, one in enumerate(able)]
    return {one.need: one.read(to_host(one.tensors()) if one.tensors() else []) for one in whole}


def replicas(model: nn.Module, broadcasts: bool | None = None) -> dict[str, Any]:
    """How far the parameters and buffers of norms differ between ranks, by name.

    `difference` is the largest difference of a value between two ranks, `largest` the largest value. Empty
    where the ranks do not hold the same model: pipelines, shards. `broadcasts` is noted as it is: whether a
    DistributedDataParallel hands out the buffers of the first rank before each forward.
    """
    named = list(_of_norms(model))
    layout = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, _, _, tensor in named]
    everything = [(name, tuple(one.shape)) for name, one in model.named_parameters()]
    sharded = _sharded(model)
    marks = gathered(hashlib.sha256(repr((layout, everything, sharded)).encode()).hexdigest())
    if len(set(marks)) > 1 or not named or size() == 1 or sharded:
        return {}
    values = torch.cat([tensor.detach().double().flatten().cpu() for *_, tensor in named])
    clean, bad = torch.nan_to_num(values), torch.isnan(values).double()
    most, least = _extremes(torch.cat((clean, bad)), named[0][-1].device)
    (most, most_bad), (least, least_bad) = most.chunk(2), least.chunk(2)
    apart = (most - least).masked_fill(most_bad != least_bad, torch.inf)
    found: dict[str, Any] = {}
    start = 0
    for order, (name, path, kind, tensor) in enumerate(named):
        here = slice(start, start + tensor.numel())
        start += tensor.numel()
        difference = float(apart[here].max())
        largest = float(torch.maximum(most[here].abs(), least[here].abs()).max())
        found[name] = {
            "module": path,
            "kind": kind,
            "call": 0,
            "order": order,
            "batches": 0,
            "ranks": size(),
            "difference": difference,
            "largest": largest,
            "broadcast": broadcasts,
            "differs": difference > TOLERANCE * largest,
        }
    return found


def _extremes(values: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Elementwise maximum and minimum over ranks, by one reduction of `(values, -values)`."""
    sent = torch.cat((values, -values))
    sent = sent.to(device) if dist.get_backend() == "nccl" else sent
    dist.all_reduce(sent, op=dist.ReduceOp.MAX)
    most, negative = sent.cpu().chunk(2)
    return most, -negative


def _of_norms(model: nn.Module) -> Iterator[tuple[str, str, str, Tensor]]:
    """(name, path of the module, parameter or buffer, tensor) of everything that a norm holds.

    A module that holds running statistics itself is a norm written by hand; of it, what is of their shape.
    """
    for path, module in model.named_modules():
        statistics = module._buffers.get("running_mean") if "running_var" in module._buffers else None
        if kind_of_module(type(module))[1] != "norm" and statistics is None:
            continue
        by_hand = statistics if kind_of_module(type(module))[1] != "norm" else None
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, tensor in tensors.items():
                if tensor is None or is_lazy(tensor) or tensor.is_meta or not tensor.numel():
                    continue
                if by_hand is None or tensor.shape == by_hand.shape:
                    yield f"{path}.{name}" if path else name, path, kind, tensor


def _sharded(model: nn.Module) -> bool:
    """Does each rank hold a part of the parameters only?"""
    return any(hasattr(one, "placements") and hasattr(one, "to_local") for one in model.parameters())
