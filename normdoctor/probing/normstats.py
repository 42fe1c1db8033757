"""What each BatchNorm normalizes: statistics of batches and of samples, beside the running ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey, observable, site_name
from normdoctor.probing.ledger import Ledger, Packed
from normdoctor.probing.normrows import blank, figures, merge, rows_of

if TYPE_CHECKING:
    from normdoctor.layers.batchstatistics import BatchStatistics, Request

#: How few samples of a batch a budget may leave: fewer say nothing of how samples differ.
FEWEST_SAMPLES = 4
#: Of about how many positions of a sample the variance is taken where it is needed as a stand-in only.
FEW_POSITIONS = 8
_NARROW = frozenset({torch.float16, torch.bfloat16})


class NormCall(NamedTuple):
    """The arguments of `F.batch_norm` (or `torch.batch_norm`) that say what it does."""

    value: Tensor
    mean: Tensor | None
    variance: Tensor | None
    training: bool
    momentum: float
    eps: float
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NormCall | None:
        """Read off a call; None where it is none that can be observed."""
        names = "input running_mean running_var weight bias training momentum eps".split()
        if len(args) == 9:  # torch.batch_norm has the parameters first, and a flag for cudnn
            names = "input weight bias running_mean running_var training momentum eps cudnn_enabled".split()
        given = dict(zip(names, args, strict=False)) | kwargs
        value = given.get("input")
        if not isinstance(value, Tensor) or not observable(value) or value.dim() < 2 or not value.numel():
            return None
        mean, variance = given.get("running_mean"), given.get("running_var")
        momentum, eps = given.get("momentum", 0.1), given.get("eps", 1e-5)
        return cls(
            value,
            mean if isinstance(mean, Tensor) else None,
            variance if isinstance(variance, Tensor) else None,
            bool(given.get("training", False)),
            float(momentum) if isinstance(momentum, float | int) else 0.0,
            float(eps) if isinstance(eps, float | int) else 0.0,
            given.get("weight"),
            given.get("bias"),
        )

    @property
    def positions(self) -> int:
        """How many values a sample has in each channel."""
        return self.value.numel() // (self.value.shape[0] * self.value.shape[1])

    @property
    def updates(self) -> bool:
        """Does the call move running statistics?"""
        return self.training and self.mean is not None and self.momentum > 0


class Before(NamedTuple):
    """A call that is about to run, with its running statistics, copied where it will move them."""

    call: NormCall
    mean: Tensor | None
    variance: Tensor | None
    request: Request | None


class Batch(NamedTuple):
    """One call: the means of its samples, of shape (samples, channels), and others of shape (channels,).

    `spread` is the sum over samples of their biased variance over positions. Where it is None it is taken
    from `few`, some values of shape (positions, samples, channels), when the forward is over.
    `running` are the running mean and variance in front of the call. Where the samples are a part of the
    batch, `whole` are mean and biased variance of all of it, if our own layer told them; else `moved` are the
    running statistics behind the call: what they were moved by tells the same of the whole batch of `values`
    values a channel.
    """

    key: SiteKey
    size: int
    values: int
    momentum: float
    means: Tensor
    spread: Tensor | None
    few: Tensor | None
    running: tuple[Tensor, Tensor] | None
    moved: tuple[Tensor, Tensor] | None
    whole: tuple[Tensor, Tensor] | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Batches of one kind can be reduced side by side."""
        moved = None if self.moved is None else self.momentum
        means, bare = self.means, (self.running is None, self.whole is None)
        return (means.device, means.dtype, len(means), self.size, bare, moved)


@dataclass
class Place:
    """What is known of a site without its values."""

    order: int
    device: torch.device
    channels: int
    sizes: Counter[int] = field(default_factory=Counter)
    positions: int = 0
    training: bool = False
    tracked: bool = False
    momentum: float = 0.0
    eps: float = 0.0
    single: bool = False


class NormCollector:
    """Statistics of what every BatchNorm takes, a channel at a time, over all observed forwards.

    All are taken of samples: the mean and variance over the positions of each sample, merged exactly. From
    the variance of the samples' means within a batch follows how much the mean of a batch of any size
    varies. `budget` bounds the values that are read of a call: then the means of a part of the samples are
    taken, each over all of its positions, and the statistics of the batch come from the update of the running
    buffers where it has one.

    BatchNorms of `normdoctor.layers` hand over in training what they normalize by, and it is not read again:
    without a budget the statistics of all samples, with one those of the batch, for which the layer computes
    to the last bit what it would if nobody watched. In eval mode they take no statistics: there the input is
    read as that of any other.
    """

    need = "batch_norm"
    roles = frozenset({"norm"})

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._places: dict[SiteKey, Place] = {}
        self._ledgers: dict[torch.device, Ledger] = {}
        self._pending: list[Batch] = []
        self._modules: list[tuple[str, nn.Module]] | None = None
        self._own: dict[nn.Module, list[BatchStatistics]] = {}
        self._first: list[Tensor] = []
        self._last: list[Tensor] = []
        self._phase = 0

    @property
    def ledgers(self) -> list[Ledger]:
        """The totals of each device."""
        return list(self._ledgers.values())

    def tracks(self, key: SiteKey) -> bool:
        """Does a site have running statistics?"""
        return key in self._places and self._places[key].tracked

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Copy the counters of batches of the model's norms."""
        self._pending.clear()
        if self._modules is None:
            named = model.named_modules()
            self._modules = [(path, one) for path, one in named if _counter(one) is not None]
        if model not in self._own:  # a checkpointed sequence is called module by module
            kept: list[Any] = [getattr(one, "statistics", None) for one in model.modules()]
            self._own[model] = [one for one in kept if hasattr(one, "request")]
        self._ask(self._own[model], by_samples=self.budget is None)
        counters = [_counter(module) for _, module in self._modules]
        self._last = [one.detach().clone() for one in counters if one is not None]
        self._first = self._first or self._last

    def before(self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Before | None:
        """Keep the running statistics as they are in front of the call."""
        call = NormCall.of(args, kwargs) if key[1] == "batch_norm" else None
        if call is None:
            return None
        value = call.value
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(len(self._places), value.device, value.shape[1])
        place.training, place.tracked = call.training, call.mean is not None
        place.momentum, place.eps = call.momentum, call.eps
        place.positions = max(place.positions, call.positions)
        place.single = place.single or (call.training and value.numel() == value.shape[1])
        if value.device != place.device or value.shape[1] != place.channels:
            return None
        mean, variance = (one.clone() if one is not None and call.updates else one for one in call[1:3])
        layer = kwargs.get("layer")
        return Before(call, mean, variance, None if layer is None else layer.statistics.request)

    def after(self, call: Call, before: Before | None) -> None:
        """Note the samples of one batch."""
        if before is None:
            return
        norm, value = before.call, before.call.value
        size, running, moved = value.shape[0], None, None
        whole, samples = _handed(before.request)
        step = self._step(value)
        read = value[self._phase % step :: step] if step > 1 else value
        if before.mean is not None and before.variance is not None:
            running = (before.mean, before.variance)
            part = norm.updates and len(read) < size and whole is None
            if part and norm.mean is not None and norm.variance is not None:
                moved = (norm.mean.clone(), norm.variance.clone())
        found: tuple[Tensor, Tensor | None, Tensor | None]
        if samples is not None:
            found, whole = (samples[0], samples[1].sum(0), None), None
        elif whole is not None:
            found = (_means(read), None, None)
        else:
            found = _of_samples(read, everything=moved is None)
        values = value.numel() // value.shape[1]
        self._pending.append(Batch(call.key, size, values, norm.momentum, *found, running, moved, whole))
        self._places[call.key].sizes[size] += 1

    def end(self, output: Any) -> None:
        """Merge what this forward added, all sites with as many samples at once."""
        groups: dict[tuple[Any, ...], list[Batch]] = {}
        for batch in self._pending:
            groups.setdefault(batch.kind, []).append(batch)
        self._pending = []
        for own in self._own.values():
            self._ask(own, by_samples=None)
        for (device, *_), batches in groups.items():
            ledger = self._ledgers.setdefault(device, Ledger(merge, blank))
            channels = [batch.means.shape[1] for batch in batches]
            rows = rows_of(batches) if self.budget is None else rows_of(batches).float()
            for batch, part in zip(batches, torch.split(rows, channels, dim=1), strict=True):
                ledger.add(batch.key, part)
        for ledger in self._ledgers.values():
            ledger.flush()
        self._phase += 1

    def abort(self) -> None:
        """Merge what was seen before the forward raised: it was computed."""
        self.end(None)

    def tensors(self) -> list[Tensor]:
        """The totals of each device, and the counters of batches."""
        totals = [ledger.total for ledger in self._ledgers.values() if ledger.total is not None]
        return [*totals, *self._first, *self._last]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The figures of each site, in the order in which they first ran; see `normrows.figures`."""
        devices = [key for key, one in self._ledgers.items() if one.total is not None]
        totals = dict(zip(devices, values, strict=False))
        counts = [int(value) for value in values[len(devices) :]]
        middle = len(counts) // 2
        paths = [path for path, _ in self._modules or []]
        tracked = {path: [counts[i], counts[middle + i]] for i, path in enumerate(paths[:middle])}
        found: dict[str, Any] = {}
        for key, place in self._places.items():
            said = {
                "module": key[0], "kind": key[1], "call": key[2], "role": "norm", "order": place.order,
                "units": place.channels, "positions": place.positions, "training": place.training,
                "tracked": place.tracked, "momentum": place.momentum, "eps": place.eps,
                "single": place.single, "batch_sizes": _sizes(place.sizes),
                "batches_tracked": tracked.get(key[0]),
            }  # fmt: skip
            ledger = self._ledgers.get(place.device)
            if ledger is not None and ledger.batches.get(key) and key not in ledger.uneven:
                start, units = ledger.slots[key]
                said |= figures(totals[place.device][:, start : start + units], tracked=place.tracked)
            elif not place.single:
                continue
            found[site_name(key)] = said
        return found

    def packed(self) -> tuple[dict[SiteKey, Place], list[Packed]]:
        """What it has collected, for another rank."""
        return self._places, [ledger.packed() for ledger in self._ledgers.values()]

    def joined(self, parts: Sequence[tuple[dict[SiteKey, Place], list[Packed]]]) -> NormCollector:
        """A collector that has seen what each of the parts has; the counters of batches are its own."""
        made, host = NormCollector(self.budget), torch.device("cpu")
        made._modules = self._modules
        made._first, made._last = ([one.cpu() for one in held] for held in (self._first, self._last))
        ledger = made._ledgers[host] = Ledger(merge, blank)
        for places, ledgers in parts:
            for key, place in places.items():
                known = made._places.setdefault(
                    key, replace(place, order=len(made._places), device=host, sizes=Counter())
                )
                known.sizes.update(place.sizes)
                known.positions = max(known.positions, place.positions)
                known.single = known.single or place.single
            for one in ledgers:
                ledger.join(one)
        return made

    @staticmethod
    def _ask(own: list[BatchStatistics], *, by_samples: bool | None) -> None:
        """Ask our own layers for their statistics; None takes that back."""
        if own:
            from normdoctor.layers.batchstatistics import Request  # imported already where there are any

            for one in own:
                one.request = None if by_samples is None else Request(by_samples=by_samples)

    def _step(self, value: Tensor) -> int:
        """Every how many-th sample is read."""
        size = value.shape[0]
        if self.budget is None or value.numel() <= self.budget:
            return 1
        read = max(self.budget * size // value.numel(), FEWEST_SAMPLES)
        return max(size // read, 1)


def _handed(request: Request | None) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]:
    """The statistics of a batch and of its samples, by the layer itself; they are handed over once."""
    if request is None:
        return None, None
    mean, variance = request.whole or (None, None)
    whole = None if mean is None or variance is None else (mean, variance)
    samples, request.whole, request.samples = request.samples, None, None
    return whole, samples


def _counter(module: nn.Module) -> Tensor | None:
    found = getattr(module, "num_batches_tracked", None)
    usable = isinstance(found, Tensor) and found.numel() == 1 and not found.is_meta
    return found if usable else None


def _of_samples(read: Tensor, *, everything: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Means of samples over their positions, their variance as `spread` of a batch, and as `few`.

    The variance is read off a part of the positions where the batch's own will be known from elsewhere.
    """
    if everything or read.dim() == 2:
        read = read.float() if read.dtype in _NARROW else read.contiguous()
    if read.dim() == 2:
        return read.clone(), None, None
    positions, means = read.flatten(2), _means(read)
    if everything:  # in two passes: on a CPU a tenth of the time of torch.var_mean
        return means, (positions - means.unsqueeze(2)).square_().mean(2).sum(0), None
    return means, None, _few(positions)


def _means(read: Tensor) -> Tensor:
    """The mean over positions of each sample, of shape (samples, channels)."""
    wide = torch.float32 if read.dtype in _NARROW else read.dtype
    return read.to(wide, copy=True) if read.dim() == 2 else read.flatten(2).mean(2, dtype=wide)


def _few(positions: Tensor) -> Tensor:
    """Copies of about `FEW_POSITIONS` values of each sample, of shape (positions, samples, channels)."""
    samples, channels, count = positions.shape
    step = max(1, count // FEW_POSITIONS)
    size = (min(FEW_POSITIONS, count), samples, channels)
    strides = positions.stride()
    return torch.as_strided_copy(
        positions, size, (strides[2] * step, *strides[:2]), positions.storage_offset()
    )


def _sizes(sizes: Counter[int]) -> dict[str, int]:
    return {str(size): count for size, count in sorted(sizes.items())}
