"""Does padding enter the statistics of BatchNorms? The model is run again with more of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from normdoctor.probing.calls import Call, Classifier, SiteKey, site_name
from normdoctor.probing.data import Arguments
from normdoctor.probing.hooks import Observer
from normdoctor.probing.normstats import NormCall
from normdoctor.probing.passes import running
from normdoctor.probing.study import Studied, batch_first, part, replaced, run, tensors

#: Fewer equal positions at the end of a sample may be chance.
LEAST = 2
#: By what share of its length a batch is made longer.
LONGER = 0.5


class Padded(NamedTuple):
    """A tensor of a batch that is padded: its place among the tensors, the axis, and what pads it.

    `size` is the length of the axis, `shortest` the sample with the longest padding; `lengths` are those of
    all samples without it.
    """

    place: int
    axis: int
    size: int
    shortest: int
    lengths: Tensor


class Statistics(NamedTuple):
    """Mean and biased variance over the batch, of shape (channels,)."""

    mean: Tensor
    variance: Tensor


class Padding:
    """Appends padding to a batch that is padded, and compares what each BatchNorm takes of it.

    A batch counts as padded where its samples end with equal positions, more of them in some samples than
    in others, along one axis of one tensor or more. Every tensor with that axis is made longer by what the
    shortest sample ends with, so masks as well.

    BatchNorms use batch statistics, dropout is off. The longer batch is normalized by the statistics of the
    batch itself, so that one norm that counts padding does not move those behind it.
    """

    need = "padding"

    def run(self, studied: Studied) -> dict[str, Any]:
        """For each call of batch_norm: how far its statistics move, and by how much padding.

        `shift` is the median over channels of the change of the mean in standard deviations, `ratio` that of
        the variance; `share` is that of padding in the batch, `longer` that in the longer one.
        """
        if studied.feed.source == "synthetic" or not batch_first(studied.facts):
            return {}
        for call in studied.calls:
            found = _padded(call)
            if found is None:
                continue
            longer, added = _longer(call, found)
            if longer is None:
                return {}
            figures = _compared(studied.model, call, longer)
            valid = float(found.lengths.double().mean())
            said = {
                "share": round(1 - valid / found.size, 4),
                "longer": round(1 - valid / (found.size + added), 4),
                "positions": found.size,
                "added": added,
            }
            return {name: one | said for name, one in figures.items()}
        return {}


class Record:
    """A collector of the statistics of each batch that is normalized by its own."""

    need = "padding_record"
    roles = frozenset({"norm"})

    def __init__(self) -> None:
        self.seen: dict[SiteKey, Statistics] = {}

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Nothing to note."""

    def before(self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the statistics."""
        call = NormCall.of(args, kwargs) if key[1] == "batch_norm" else None
        if call is not None and call.training:
            self.seen[key] = _statistics(call.value)

    def after(self, call: Call, before: None) -> None:
        """Nothing to note."""

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


class Normalized(TorchFunctionMode):
    """Runs batch norms in train mode on given statistics, by the order of the calls; on their own otherwise.

    `seen` are those that were used. No buffer moves.
    """

    def __init__(self, given: Sequence[Statistics] = ()) -> None:
        super().__init__()
        self.given = given
        self.seen: list[Statistics] = []
        self._classify = Classifier()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = NormCall.of(args, kwargs or {}) if self._classify(func)[0] == "batch_norm" else None
        if call is None or not call.training:
            return func(*args, **(kwargs or {}))
        place = len(self.seen)
        used = self.given[place] if place < len(self.given) else _statistics(call.value)
        self.seen.append(used)
        mean, variance = (one.to(call.value.dtype) for one in used)
        return torch.nn.functional.batch_norm(
            call.value, mean, variance, call.weight, call.bias, False, 0.0, call.eps
        )


def _statistics(value: Tensor) -> Statistics:
    axes = [axis for axis in range(value.dim()) if axis != 1]
    wide = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    variance, mean = torch.var_mean(wide, axes, correction=0)
    return Statistics(mean, variance)


def _padded(call: Arguments) -> Padded | None:
    """The padding of a batch, as its floating point inputs or its tokens show it. None where there is none.

    Images on a black ground are not padded, nor is what begins with the same values as it ends with.
    """
    found = None
    for place, tensor in enumerate(tensors(call)):
        if tensor.dim() < 2 or tensor.shape[0] < 2 or tensor.dtype is torch.bool:
            continue
        axes = [(axis, one) for axis in range(1, tensor.dim()) if (one := _ends(tensor, axis)) is not None]
        if len(axes) > 1:
            return None
        if axes and (found is None or tensor.is_floating_point()):
            axis, (shortest, lengths) = axes[0]
            known = Padded(place, axis, tensor.shape[axis], shortest, lengths)
            found = known if found is None or tensor.dim() > 2 else found
    return found


def _ends(tensor: Tensor, axis: int) -> tuple[int, Tensor] | None:
    """(the sample with the longest padding, the lengths of all without theirs) along an axis."""
    slices = tensor.movedim(axis, 1).flatten(2) if tensor.dim() > 2 else tensor.unsqueeze(2)
    size = slices.shape[1]
    if size <= LEAST:
        return None
    shortest = int(_lengths(slices, slices[:, -1]).argmin())
    pad = slices[shortest, -1].expand(len(slices), -1)
    lengths = _lengths(slices, pad)
    least, most = int(lengths.min()), int(lengths.max())
    if least < 1 or least > size - LEAST or least == most:
        return None
    begins = (slices[:, 0] == pad).all(1)
    return (shortest, lengths) if int(begins.sum()) <= len(slices) // 10 else None


def _lengths(slices: Tensor, pad: Tensor) -> Tensor:
    """How many positions stand in front of the last run of `pad`; slices of shape (samples, positions, -)."""
    differ = (slices != pad.unsqueeze(1)).any(2)
    places = torch.arange(1, slices.shape[1] + 1, device=slices.device)
    return (differ * places).amax(1)


def _longer(call: Arguments, found: Padded) -> tuple[Arguments | None, int]:
    """The batch with more padding, and by how many positions; None where it is not clear what to extend."""
    samples = len(found.lengths)
    added = max(int(found.size * LONGER), 1)
    clear, place = True, -1

    def extended(tensor: Tensor) -> Tensor:
        nonlocal clear, place
        place += 1
        if tensor.dim() < 2 or tensor.shape[0] != samples:
            return tensor
        axes = [axis for axis in range(1, tensor.dim()) if tensor.shape[axis] == found.size]
        if place == found.place:
            axes = [found.axis]
        elif len(axes) > 1 and (tensor.dtype is not torch.bool or len(axes) > 2):
            clear = False
        for axis in axes:
            last = tensor[found.shortest].select(axis - 1, -1).unsqueeze(axis - 1)
            shape = list(tensor.shape)
            shape[axis] = added
            tensor = torch.cat((tensor, last.unsqueeze(0).expand(shape)), axis)
        return tensor

    made: Arguments = replaced(call, extended)
    return (made if clear else None), added


def _compared(model: nn.Module, call: Arguments, longer: Arguments) -> dict[str, dict[str, Any]]:
    """How far the statistics of each batch_norm move. Nothing where the model refuses the longer batch."""
    if any(tensor.device.type != "cpu" for tensor in tensors((call, longer))):
        # An index that is too large for a table of positions is an error there; on a GPU it ends the process.
        model.to("cpu")
        call, longer = (replaced(one, lambda tensor: tensor.cpu()) for one in (call, longer))
    part(model)
    whole = model.training
    for module in model.modules():
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm) or running(module)
        module.training = norm and (module.training or not whole)
    try:
        first, used = _run(model, call, ())
        second, _ = _run(model, longer, used)
    except Exception:  # the user's forward
        return {}
    if list(first) != list(second) or len(first) != len(used):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for order, (key, before) in enumerate(first.items()):
        after = second[key]
        live = before.variance > 1e-12 * before.mean.square()
        if before.mean.shape != after.mean.shape or not bool(live.any()):
            continue
        shift = (after.mean - before.mean).abs()[live] / before.variance[live].sqrt()
        ratio = (after.variance[live] / before.variance[live]).median()
        found[site_name(key)] = {
            "module": key[0], "kind": key[1], "call": key[2], "role": "norm", "order": order,
            "units": len(live), "shift": round(float(shift.median()), 6), "ratio": round(float(ratio), 6),
        }  # fmt: skip
    return found


def _run(
    model: nn.Module, call: Arguments, given: Sequence[Statistics]
) -> tuple[dict[SiteKey, Statistics], list[Statistics]]:
    """The statistics of each batch norm of a forward by site, and those that were used, in order."""
    record = Record()
    observer = Observer(model, [record])
    observer.attach()
    try:
        with Normalized(given) as mode:
            run(model, call)
    finally:
        observer.detach()
    return record.seen, mode.seen
