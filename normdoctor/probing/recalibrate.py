"""Running statistics set to those of the population, in place of an average over the last batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from normdoctor.config import check_count
from normdoctor.errors import TraceError, UsageError, kind_of
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.batchmode import BatchMode
from normdoctor.probing.data import Feed
from normdoctor.probing.normstats import NormCall
from normdoctor.probing.probe import demand_values, feed_model
from normdoctor.probing.sandbox import sandbox


def recalibrate(
    model: nn.Module,
    data: Any,
    *,
    batches: int | None = None,
    batch_to_inputs: Callable[[Any], Any] | None = None,
    layerwise: bool = False,
) -> tuple[str, ...]:
    """Set the running statistics of every BatchNorm to the mean and variance of what it normalizes in `data`.

    They are exact: each value counts once, however large its batch, and the variance is the population's
    (biased), not an average of the batches'. 1e3 to 1e4 samples are enough (Wu and Johnson, 2021). The model
    runs once over the data, with dropout off and every BatchNorm on the statistics of its batch, as in
    training. Modules and `F.batch_norm` over buffers of one's own are treated alike; a layer that is called
    several times gets the statistics of all its calls. Everything else is left as it was: mode, counters of
    batches, parameters, gradients, random state.

    Under `torch.distributed` each rank passes its share of the data, and all get the statistics of the
    whole, by one all-reduce.

    Args:
        model: The model, in either mode.
        data: Batches as for `normdoctor.check`: tensors, `(inputs, labels)` pairs or dicts, a DataLoader.
        batches: How many batches are read; all when None.
        batch_to_inputs: Makes of a batch what the model takes.
        layerwise: Set one BatchNorm after the other, each with those in front of it on their new statistics
            as in eval mode. Then the result does not depend on how the data are cut into batches; it takes
            one run over the data for each layer.

    Returns:
        The names of the running means that were set.

    Raises:
        NormDoctorError: No BatchNorm with running statistics was called, or its values are not finite.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to recalibrate, found {kind_of(model)}")
    if batches is not None:
        check_count(batches, "a number of batches")
    if type(layerwise) is not bool:
        raise UsageError(f"layerwise is {kind_of(layerwise)}: expected True or False")
    if batch_to_inputs is not None and not callable(batch_to_inputs):
        raise UsageError(f"batch_to_inputs is {kind_of(batch_to_inputs)}: expected a function of a batch")
    inner = unwrapped(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise UsageError(
            "a ScriptModule runs without Python, so what its norms are given cannot be seen",
            hint="Recalibrate the module that it was made of, and script it then.",
        )
    demand_values(inner, None)
    feed = Feed(data, limit=batches, to_inputs=batch_to_inputs)
    if layerwise and iter(feed.data) is feed.data:
        raise UsageError("layerwise=True reads the data more than once, and an iterator gives them once")
    names = _names(inner)
    totals = _measured(inner, feed, None, {})
    if layerwise:
        done: dict[int, Total] = {}
        for key in list(totals):
            done[key] = _reduced(_measured(inner, feed, key, done), names, inner)[key]
        totals = done
    else:
        totals = _reduced(totals, names, inner)
    if not totals:
        raise UsageError(
            "no BatchNorm with running statistics was called, so there is nothing to recalibrate",
            hint="Norms that are written by hand, without F.batch_norm, cannot be recalibrated.",
        )
    for total in totals.values():
        total.check(names)
    with torch.no_grad():
        for total in totals.values():
            total.running_mean.copy_(total.mean)
            total.running_var.copy_(total.m2 / total.count)
    return tuple(sorted(names.get(id(total.running_mean), "") for total in totals.values()))


class Total:
    """Count, mean and squared deviations of all that one pair of running statistics stands for."""

    def __init__(self, running_mean: Tensor, running_var: Tensor) -> None:
        self.running_mean = running_mean
        self.running_var = running_var
        wide = torch.float32 if running_mean.device.type == "mps" else torch.float64
        self.count = 0
        self.mean = torch.zeros(running_mean.shape, dtype=wide, device=running_mean.device)
        self.m2 = torch.zeros_like(self.mean)

    def add(self, count: int, mean: Tensor, m2: Tensor) -> None:
        """Merge another set of values (Chan, Golub and LeVeque, 1979)."""
        if count:
            delta, whole = mean - self.mean, self.count + count
            self.mean = self.mean + delta * (count / whole)
            self.m2 = self.m2 + m2 + delta * delta * (self.count * count / whole)
            self.count = whole

    def check(self, names: dict[int, str]) -> None:
        """Raise where the statistics cannot be used."""
        if self.count == 1:
            name = names.get(id(self.running_mean), "a BatchNorm")
            raise UsageError(
                f"`{name}` got one value a channel, which has no variance", hint="Pass more data."
            )
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.m2).all()):
            name = names.get(id(self.running_mean), "a BatchNorm")
            raise TraceError(
                f"the values behind `{name}` are not finite, so it was left as it is",
                hint="Find the batch with NaN or infinity: normdoctor check --select ND608 --data ...",
            )


def _measured(model: nn.Module, feed: Feed, only: int | None, known: dict[int, Total]) -> dict[int, Total]:
    """The totals of each pair of running statistics, by the identity of the mean, in order of the calls.

    With `only`, of that one alone, while those in `known` are used as they are there.
    """
    totals: dict[int, Total] = {}

    def note(place: int, call: NormCall) -> None:
        if call.mean is None or call.variance is None:
            return
        key = id(call.mean)
        if key in known:
            total = known[key]
            mode.running[place] = (total.mean.to(call.mean), (total.m2 / total.count).to(call.mean))
            mode.settled.add(place)
            return
        total = totals.setdefault(key, Total(call.mean, call.variance))
        if only in (None, key):
            values = call.value.detach().to(total.mean.dtype)
            axes = [0, *range(2, values.dim())]
            variance, mean = torch.var_mean(values, axes, correction=0)
            count = values.numel() // values.shape[1]
            total.add(count, mean, variance * count)

    with sandbox(model), torch.no_grad():
        model.eval()
        read = 0
        for index, call in enumerate(feed.calls(model)):
            mode = _Settling(note)
            with mode:
                feed_model(model, call, f"batch {index} of {feed.name}")
            read += 1
    if not read:
        raise UsageError(
            f"{feed.name} holds no batch, so there is nothing to recalibrate",
            hint="An iterator gives its batches once.",
        )
    return totals


class _Settling(BatchMode):
    """Batch statistics everywhere but at the places that were settled on the way."""

    def __init__(self, on_call: Callable[[int, NormCall], None]) -> None:
        self.settled: set[int] = set()
        self.running: dict[int, tuple[Tensor, Tensor]] = {}
        super().__init__(_AllBut(self.settled), self.running, on_call)


class _AllBut:
    def __init__(self, members: set[int]) -> None:
        self.members = members

    def __contains__(self, place: object) -> bool:
        return place not in self.members


def _names(model: nn.Module) -> dict[int, str]:
    """The names of all tensors that may be running statistics: buffers, and attributes that are none."""
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        held: Iterable[tuple[str, Any]] = (*module._buffers.items(), *vars(module).items())
        for name, value in held:
            if isinstance(value, Tensor) and value.dim() == 1 and value.is_floating_point():
                found.setdefault(id(value), f"{path}.{name}" if path else name)
    return found


def _reduced(totals: dict[int, Total], names: dict[int, str], model: nn.Module) -> dict[int, Total]:
    """The totals over all ranks, the same on each: every rank fills its row, one sum hands round all rows."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return totals
    order = sorted(names, key=lambda key: names[key])
    tensors = {id(value): value for module in model.modules() for value in _tensors(module)}
    width = sum(1 + 2 * tensors[key].numel() for key in order)
    device = next(iter(tensors.values())).device
    wide = torch.float32 if device.type == "mps" else torch.float64
    row = torch.zeros(width, dtype=wide, device=device)
    at = 0
    for key in order:
        size = tensors[key].numel()
        if key in totals:
            one = totals[key]
            row[at : at + 1 + 2 * size] = torch.cat((one.mean.new_tensor([one.count]), one.mean, one.m2))
        at += 1 + 2 * size
    rows = torch.zeros(dist.get_world_size(), width, dtype=wide, device=device)
    rows[dist.get_rank()] = row
    dist.all_reduce(rows)
    return _merged(rows, order, tensors, totals, names)


def _merged(
    rows: Tensor,
    order: list[int],
    tensors: dict[int, Tensor],
    totals: dict[int, Total],
    names: dict[int, str],
) -> dict[int, Total]:
    by_name = {names[key]: key for key in order}
    found: dict[int, Total] = {}
    at = 0
    for key in order:
        size = tensors[key].numel()
        part = rows[:, at : at + 1 + 2 * size]
        at += 1 + 2 * size
        if not float(part[:, 0].sum()):
            continue
        pair = totals[key].running_var if key in totals else _partner(names[key], by_name, tensors)
        total = found[key] = Total(tensors[key], pair)
        for one in part:
            total.add(int(one[0]), one[1 : 1 + size], one[1 + size :])
    return found


def _partner(name: str, by_name: dict[str, int], tensors: dict[int, Tensor]) -> Tensor:
    """The running variance beside a running mean that this rank did not see in use."""
    for word in ("var", "variance"):
        key = by_name.get(word.join(name.rsplit("mean", 1)))
        if key is not None:
            return tensors[key]
    raise TraceError(
        f"`{name}` was used on another rank only, and its variance cannot be told here",
        hint="Give every rank at least one batch.",
    )


def _tensors(module: nn.Module) -> list[Tensor]:
    return [
        value for value in (*module._buffers.values(), *vars(module).values()) if isinstance(value, Tensor)
    ]
