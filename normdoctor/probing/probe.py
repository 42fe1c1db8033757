"""Running a model over batches of data, and measuring on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from normdoctor.errors import TraceError, UsageError, text_of
from normdoctor.facts import Facts
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.hooks import Collector, Observer
from normdoctor.probing.plan import planned
from normdoctor.probing.sandbox import sandbox

#: `Facts.measurements`: the name of a statistic to its figures, by site.
Measurements = dict[str, dict[str, Any]]

BATCH_HINT = "A batch is what the model takes: a tensor, (inputs, labels), or a dict of keyword arguments."


def measure(
    model: nn.Module, data: Any, facts: Facts, *, source: str = "data", needs: Iterable[str] | None = None
) -> Facts:
    """Add to the facts what rules need to know from `data`: batches, each a tensor, a tuple or a dict.

    Of a tuple `(x, labels)` the first element is fed to the model, of a dict its entries by keyword. The
    model runs in the mode that it is in, without gradients, and is left as it was. `source` says what the
    data are: `"data"` for the user's own, `"synthetic"` for made-up batches. `needs` are the measurements
    that are wanted, all when None.
    """
    measured = probe(model, data, planned(needs), source=source)
    return msgspec.structs.replace(facts, measurements={**(facts.measurements or {}), **measured})


def probe(
    model: nn.Module, data: Any, collectors: Sequence[Collector] | None = None, *, source: str = "data"
) -> Measurements:
    """What collectors (all, when None) find in `model` over `data`, by need and site.

    `run` says over what: how many batches, from which source.
    """
    inner = unwrapped(model)
    observer = Observer(inner, planned() if collectors is None else collectors)
    device = next((tensor.device for tensor in inner.parameters()), torch.device("cpu"))
    with sandbox(inner), torch.no_grad():
        observer.attach()
        try:
            count = 0
            for batch in batches(data):
                _feed(inner, _moved(batch, device), count)
                count += 1
        finally:
            observer.detach()
    if count == 0:
        raise UsageError("expected batches of data to measure on, found none")
    return {**observer.read(), "run": {"source": source, "batches": count}}


def batches(data: Any) -> Iterable[Any]:
    """The batches in `data`; a lone tensor or dict is one batch."""
    if isinstance(data, Tensor | Mapping):
        return [data]
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise UsageError(
            f"expected batches of data, found {type(data).__name__}",
            hint="Pass a list of tensors, of (inputs, labels) tuples or of dicts, or a DataLoader.",
        )
    return data


def _feed(model: nn.Module, batch: Any, index: int) -> None:
    args, kwargs = _arguments(batch, index)
    try:
        model(*args, **kwargs)
    except (Exception, SystemExit) as error:
        first = (text_of(error).splitlines() or [""])[0]
        raise TraceError(
            f"the model raised {type(error).__name__} on batch {index} of the data: {first}",
            hint=BATCH_HINT,
        ) from error


def _arguments(batch: Any, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, list | tuple):
        if not batch:
            raise UsageError(f"batch {index} of the data is empty")
        return _arguments(batch[0], index)
    if not isinstance(batch, Tensor):
        raise UsageError(
            f"batch {index} of the data is of type {type(batch).__name__}",
            hint=BATCH_HINT,
        )
    return (batch,), {}


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [_moved(value, device) for value in batch[:1]]
    return batch
