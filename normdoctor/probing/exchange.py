"""Does the output for a sample depend on the other samples of its batch, in eval mode?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey
from normdoctor.probing.data import Arguments
from normdoctor.probing.hooks import Observer
from normdoctor.probing.study import Studied, batch_first, batch_size, replaced, run, tensors

ROLES = frozenset(
    "norm activation linear dropout add gate concat pool reshape reduce softmax attention loss other".split()
)
#: How many values of each call are compared to find where the dependence begins.
COMPARED = 4096
#: Changes up to this share of the output's largest value are rounding. Both runs have tensors of the same
#: shapes, so the same kernels work on the rows that stayed: on a CPU they agree to the last bit.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF_TOLERANCE = 5e-2


class Exchange:
    """Runs a batch again with one half of its samples exchanged, and compares the other half.

    The exchanged samples come from the second batch, or are copies of those that stay. Nothing is said
    where the first axis is not that of samples (its size is not free, the recording calls it something
    else, or outputs hold a value for each pair of samples), or where two equal runs differ.
    """

    need = "exchange"

    def run(self, studied: Studied) -> dict[str, Any]:
        """`change`: the largest change, as a share of the largest output; where it begins, as a site."""
        if not studied.calls or not batch_first(studied.facts):
            return {}
        model, call = studied.model.eval(), studied.calls[0]
        size = batch_size(call)
        if size is None or size < 2:
            return {}
        kept = size // 2
        other = _exchanged(call, studied.calls[1:], kept)
        before = _output(run(model, call), size)
        if before is None or not _free(model, call, size, before):
            return {}
        again, after = _output(run(model, call), size), _output(run(model, other), size)
        if again is None or after is None or again.shape != before.shape or after.shape != before.shape:
            return {}
        limit = TOLERANCES.get(before.dtype, HALF_TOLERANCE)
        change = _change(before[:kept], after[:kept])
        found = {"change": round(change, 8), "limit": limit, "batch_size": size, "exchanged": size - kept}
        if _change(before[:kept], again[:kept]) > limit / 10:
            return {}
        if change > limit:
            found |= _beginning(model, (call, other), size, limit)
        return {"model": found}


class Trace:
    """A collector that keeps a few values of each call, of the samples that stay."""

    need = "trace"
    roles = ROLES

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: list[tuple[SiteKey, str, Tensor]] = []

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Nothing to note."""

    def before(self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Nothing to note."""

    def after(self, call: Call, before: None) -> None:
        """Keep values of the outputs that have the samples along their first axis."""
        if call.output.shape[0] == self.size:
            values = call.output[: self.size // 2].flatten()
            step = max(values.numel() // COMPARED, 1)
            self.seen.append((call.key, call.role, values[::step].clone()))

    def end(self, output: Any) -> None:
        """Nothing to merge."""

    def abort(self) -> None:
        """Nothing to undo."""

    def tensors(self) -> list[Tensor]:
        """Nothing to copy."""
        return []

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """Nothing to tell."""
        return {}


def _beginning(model: nn.Module, calls: Sequence[Arguments], size: int, limit: float) -> dict[str, Any]:
    """The first call whose output for the samples that stayed is another one."""
    traces = []
    for call in calls:
        trace = Trace(size)
        observer = Observer(model, [trace])
        observer.attach()
        try:
            run(model, call)
        finally:
            observer.detach()
        traces.append(trace.seen)
    for (key, role, before), (twin, _, after) in zip(*traces, strict=False):
        if key != twin or before.shape != after.shape:
            break
        if _change(before, after) > limit:
            return {"module": key[0], "kind": key[1], "call": key[2], "role": role}
    return {"module": "", "kind": "", "call": 0, "role": "other"}


def _exchanged(call: Arguments, others: Sequence[Arguments], kept: int) -> Arguments:
    """The batch with all but the first samples taken from another one that fits, or else copied."""
    shapes = [tensor.shape for tensor in tensors(call)]
    fits = (other for other in others if [tensor.shape for tensor in tensors(other)] == shapes)
    if (other := next(fits, None)) is not None:
        rest = iter(list(tensors(other)))
        joined: Arguments = replaced(call, lambda one: torch.cat((one[:kept], next(rest)[kept:])))
        return joined

    def copied(one: Tensor) -> Tensor:
        return one[torch.arange(len(one), device=one.device) % kept]

    made: Arguments = replaced(call, copied)
    return made


def _output(out: Any, size: int) -> Tensor | None:
    for tensor in tensors(out):
        if tensor.is_floating_point() and tensor.dim() and tensor.shape[0] == size:
            return tensor.detach()
    return None


def _free(model: nn.Module, call: Arguments, size: int, output: Tensor) -> bool:
    """Does the model take fewer samples, with as many outputs, none of which is for a pair of samples?"""
    fewer: Arguments = replaced(call, lambda tensor: tensor[: size - 1])
    if size == 2:
        fewer = replaced(call, lambda tensor: torch.cat((tensor, tensor[:1])))
    count = 3 if size == 2 else size - 1
    try:
        found = _output(run(model, fewer), count)
    except Exception:  # the user's forward
        return False
    return found is not None and found.shape[1:] == output.shape[1:]


def _change(before: Tensor, after: Tensor) -> float:
    if not before.numel():
        return 0.0
    first, second = before.double(), after.double()
    change = float((first - second).abs().max() / first.abs().max().clamp(min=1e-30))
    return change if change == change else 0.0  # noqa: PLR0124, NaN in both says nothing
