"""Running a model over batches of data, and measuring on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from normdoctor.errors import TraceError, UsageError, brief, text_of
from normdoctor.facts import Facts
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing import ranks
from normdoctor.probing.data import BATCH_HINT, Arguments, Feed
from normdoctor.probing.eager import eager
from normdoctor.probing.finite import leaves
from normdoctor.probing.hooks import Collector, Observer
from normdoctor.probing.plan import planned, studies
from normdoctor.probing.sandbox import sandbox
from normdoctor.probing.study import KEPT, Studied, part

#: `Facts.measurements`: the name of a statistic to its figures, by site.
Measurements = dict[str, dict[str, Any]]
#: What torch says when a BatchNorm is to normalize one value by itself.
ONE_VALUE = "Expected more than 1 value per channel when training"
#: Called after each batch with how many are done, and how many there are where that is known.
OnBatch = Callable[[int, int | None], None]


def measure(
    model: nn.Module,
    data: Any,
    facts: Facts,
    *,
    source: str = "data",
    needs: Iterable[str] | None = None,
    device: torch.device | None = None,
    training: bool | None = None,
    on_batch: OnBatch | None = None,
    all_ranks: bool = False,
) -> Facts:
    """Add to the facts what rules need to know from `data`: a `Feed`, or what one is made of.

    The model runs without gradients, in the mode that it is in unless `training` says otherwise, on its own
    device unless another is given, and is left as it was. `source` says what the data are: `"data"` for the
    user's own, `"synthetic"` for made-up batches. `needs` are the measurements that are wanted, all when
    None. With `all_ranks` the figures are those over the batches of all ranks of `torch.distributed`: each
    of them has to call this with its share, which may be empty.
    """
    feed = data if isinstance(data, Feed) else Feed(data, source=source)
    kept: list[Arguments] = []
    measured = probe(
        model,
        feed,
        planned(needs),
        device=device,
        training=training,
        on_batch=on_batch,
        kept=kept,
        all_ranks=all_ranks,
    )
    told = feed.told(measured["run"]["batches"])
    notes = [f"measured over {told}" + (f" on {measured['run']['ranks']} ranks" if all_ranks else "")]
    if refused := measured["run"].get("refused"):
        notes.append(f"{refused} of the batches left a BatchNorm one value a channel, which torch refuses")
    if bad := measured["run"].get("not_finite"):
        notes.append(f"{bad} of the batches hold NaN or infinity themselves")
    notes += measured["run"].pop("notes", [])
    studied = Studied(unwrapped(model), tuple(kept), feed, facts, measured)
    for study in studies(needs):
        try:
            with sandbox(studied.model), torch.no_grad():
                if device is not None:
                    studied.model.to(device)
                measured[study.need] = study.run(studied)
        except Exception as error:  # the user's forward, in a mode or on a batch that it was not made for
            notes.append(f"{study.need.replace('_', ' ')} could not be measured: {brief(error)}")
    if all_ranks:
        measured |= _first(measured, [study.need for study in studies(needs)])
    return msgspec.structs.replace(
        facts, measurements={**(facts.measurements or {}), **measured}, notes=(*facts.notes, *notes)
    )


def probe(
    model: nn.Module,
    data: Any,
    collectors: Sequence[Collector] | None = None,
    *,
    source: str = "data",
    device: torch.device | None = None,
    training: bool | None = None,
    on_batch: OnBatch | None = None,
    kept: list[Arguments] | None = None,
    all_ranks: bool = False,
) -> Measurements:
    """What collectors (all, when None) find in `model` over `data`, by need and site.

    `run` says over what: how many batches, from which source, and the batch size that was stated; `refused`
    counts those that left a BatchNorm one value a channel. The first batches are put into `kept`.
    """
    feed = data if isinstance(data, Feed) else Feed(data, source=source)
    inner = unwrapped(model)
    observer = Observer(inner, planned() if collectors is None else collectors)

    def work() -> Tally:
        demand_values(inner, device)
        return _observed(observer, feed, device, training, on_batch, kept)

    tally = ranks.together(work) if all_ranks else work()
    tallies = ranks.gathered(tally) if all_ranks else [tally]
    run: dict[str, Any] = {"source": feed.source}
    for name, counts in zip(("batches", "refused", "not_finite"), zip(*tallies, strict=True), strict=False):
        if name == "batches" or sum(counts):
            run[name] = sum(counts)
    if run["batches"] == 0:
        first = next((one.refusal for one in tallies if one.refusal is not None), None)
        raise first or UsageError(f"expected batches of data to measure on, found none in {feed.name}")
    if sum(one.nan for one in tallies) == run["batches"]:  # infinity may be meant, in a mask
        raise UsageError(
            f"every batch of {feed.name} holds NaN, so nothing can be measured on them",
            hint="Look for what makes them in front of the model: the files, a division by a zero deviation.",
        )
    if feed.batch_size is not None:
        run["batch_size"] = feed.batch_size
    if notes := observer.blindness(tally.batches):
        run["notes"] = notes
    if not all_ranks:
        return {**(observer.read() if observer.shown else {}), "run": run}
    run["ranks"] = len(tallies)
    return {
        **ranks.across(observer.collectors),
        "ranks": ranks.replicas(inner, getattr(model, "broadcast_buffers", None)),
        "run": run,
    }


class Tally(NamedTuple):
    """How many batches ran, were refused, held NaN or infinity, and held NaN; the first refusal."""

    batches: int
    refused: int
    not_finite: int
    nan: int
    refusal: TraceError | None


def _observed(
    observer: Observer,
    feed: Feed,
    device: torch.device | None,
    training: bool | None,
    on_batch: OnBatch | None,
    kept: list[Arguments] | None,
) -> Tally:
    """Run the model over the batches, in a sandbox."""
    model = observer.model
    count = bad = nan = 0
    refusals: list[TraceError] = []
    with sandbox(model), torch.no_grad():
        if device is not None:
            model.to(device)
        if training is not None:
            model.train(training)
        part(model)
        eager.enter(observer)
        observer.attach()
        try:
            for call in feed.calls(model, device):
                place = f"batch {count + len(refusals)} of {feed.name}"
                _demand_samples(call, place)
                if (refusal := feed_model(model, call, place)) is not None:
                    refusals.append(refusal)
                    continue
                bad += not _all_are(torch.isfinite, call)
                nan += not _all_are(_numbers, call)
                if kept is not None and len(kept) < KEPT:
                    kept.append(call)
                count += 1
                if on_batch is not None:
                    on_batch(count, feed.total)
        finally:
            observer.detach()
            eager.leave(observer)
    return Tally(count, len(refusals), bad, nan, refusals[0] if refusals else None)


def _first(measured: Measurements, needs: Sequence[str]) -> Measurements:
    """What studies found on the first rank where they found anything, so that all ranks say the same."""
    found: Measurements = {}
    for share in ranks.gathered({need: measured[need] for need in needs if measured.get(need)}):
        found = share | found
    return found


def _demand_samples(call: Arguments, place: str) -> None:
    """Raise UsageError where the first tensor of a batch is empty: nothing is measured on it."""
    first = next((value for value in leaves(call) if isinstance(value, Tensor)), None)
    if first is not None and not first.numel():
        raise UsageError(f"{place} is empty: it was called with {_told(first)}", hint=BATCH_HINT)


def _all_are(what: Callable[[Tensor], Tensor], call: Arguments) -> bool:
    tensors = (value for value in leaves(call) if isinstance(value, Tensor))
    return all(bool(what(one).all()) for one in tensors if one.is_floating_point())


def _numbers(tensor: Tensor) -> Tensor:
    return ~torch.isnan(tensor)


def demand_values(model: nn.Module, device: torch.device | None) -> None:
    """Raise UsageError where nothing can be computed: on the meta device."""
    if device is not None and device.type == "meta":
        raise UsageError(
            "the meta device holds no values, so nothing can be measured on it",
            hint="Leave data out, or name a device such as cpu or cuda.",
        )
    name = next((name for name, tensor in model.named_parameters() if tensor.is_meta), None)
    if name is not None:
        raise UsageError(
            f"`{name}` is on the meta device and has no values, so nothing can be measured",
            hint="Build the model on a device such as cpu or cuda, or load its weights.",
        )


def feed_model(model: nn.Module, call: Arguments, place: str) -> TraceError | None:
    """Run the model on one batch; returns the error of a batch that is too small for a BatchNorm."""
    args, kwargs = call
    try:
        model(*args, **kwargs)
    except (Exception, SystemExit) as error:
        first = (text_of(error).splitlines() or [""])[0]
        given = ", ".join([*map(_told, args), *(f"{name}={_told(value)}" for name, value in kwargs.items())])
        raised = TraceError(
            f"the model raised {type(error).__name__} on {place}: {first}",
            hint=f"It was called with {given}. {BATCH_HINT}",
        )
        if isinstance(error, ValueError) and ONE_VALUE in first:
            return raised
        raise raised from error
    return None


def _told(value: Any) -> str:
    """One argument in few words: `float32 (2, 3)`."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value)) or 'nothing'}"[:80]
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
