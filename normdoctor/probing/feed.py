"""The figures of each look as scalars, for whoever draws curves: TensorBoard, W&B, MLflow, a file.

A look starts one copy to the host, and a later step hands on what has arrived: nothing waits for the device.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from normdoctor.errors import UsageError, brief, kind_of
from normdoctor.probing.gradientbank import Bank
from normdoctor.probing.gradients import GradientCollector
from normdoctor.probing.hooks import Observer
from normdoctor.probing.ledger import Ledger
from normdoctor.probing.live import NormDoctorWarning
from normdoctor.probing.lookfigures import Tags, gap_figures, parameter_figures, site_figures
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.transfer import Transfer
from normdoctor.probing.units import UnitCollector

#: Over how many looks a unit has to be off to count as dead; so few values are read in one look.
LOOKS = 8
#: So many looks may be on their way; then the oldest is waited for: not all devices tell when it is there.
_MOST = 4


@runtime_checkable
class MetricSink(Protocol):
    """Takes scalars. `accelerate.Accelerator` is one, and `normdoctor.integrations` has adapters."""

    def log(self, metrics: dict[str, float], step: int, /) -> Any:
        """Note what was measured at one step. Tags read `normdoctor/<module>/<metric>`."""


Log = Callable[[dict[str, float], int], Any]


def log_of(sink: Any) -> Log:
    """The function that takes scalars, of a sink or a function; UsageError for anything else."""
    if not isinstance(sink, type):
        if isinstance(sink, MetricSink) and callable(sink.log):
            return sink.log
        if callable(sink) and not isinstance(sink, nn.Module):
            log: Log = sink
            return log
    raise UsageError(
        f"sink is {kind_of(sink)}: expected an object with log(metrics, step), or a function of both",
        hint="normdoctor.integrations has TensorBoard(writer), WandB(run), MLflow() and JsonLines(path).",
    )


class _Look(NamedTuple):
    """What is on its way: `first` is a look of a new observer, whose totals start at zero."""

    step: int
    transfer: Transfer
    ledgers: list[Ledger]
    norms: list[tuple[NormCollector, Ledger]]
    banks: list[Bank]
    loss: bool
    first: bool


class Feed:
    """Hands the figures of looks to a sink."""

    def __init__(self, model: nn.Module, log: Log) -> None:
        self._tags = Tags(model)
        self._log = log
        self._looks: deque[_Look] = deque()
        self._observer: Observer | None = None
        self._totals: list[deque[Tensor]] = []

    def add(
        self,
        step: int,
        observer: Observer | None,
        gradients: GradientCollector,
        loss: Tensor | float | None,
    ) -> None:
        """Take what is new: of an observer that looked just now, and of gradients of this step."""
        known = [bank for bank in gradients.banks if bank.series.latest == step]
        if observer is None and not known:
            return
        collectors = () if observer is None else observer.collectors
        ledgers = [one for c in collectors if isinstance(c, UnitCollector) for one in _filled(c.ledgers)]
        norms = [(c, one) for c in collectors if isinstance(c, NormCollector) for one in _filled(c.ledgers)]
        values = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss or 0.0))
        tensors = [
            *(part for one in ledgers if one.total is not None for part in (one.total[:3], one.total[5:8])),
            *(one.total for _, one in norms if one.total is not None),
            *(bank.series.newest for bank in known),
            values.double() if values.is_cpu else values,
        ]
        first = observer is not None and observer is not self._observer
        self._observer = observer or self._observer
        self._looks.append(_Look(step, Transfer(tensors), ledgers, norms, known, loss is not None, first))

    def drain(self, findings: int, *, wait: bool = False) -> None:
        """Hand on what has arrived; `findings` stand just now."""
        while self._looks and (wait or len(self._looks) > _MOST or self._looks[0].transfer.arrived):
            look = self._looks.popleft()
            metrics = self._metrics(look)
            metrics[self._tags.of("", "findings")] = float(findings)
            try:
                self._log(metrics, look.step)
            except Exception as error:  # a full disk or a server that is gone must not end a training
                what = f"the sink of the figures raised {brief(error)}; it gets no more of them"
                warnings.warn(what, NormDoctorWarning, stacklevel=3)
                self._log = _nothing

    def _metrics(self, look: _Look) -> dict[str, float]:
        values = look.transfer.wait()
        if look.first:
            self._totals = []
        found: dict[str, float] = {}
        for place, ledger in enumerate(look.ledgers):
            if place == len(self._totals):
                self._totals.append(deque(maxlen=LOOKS))
            rows = torch.cat((values[2 * place], values[2 * place + 1]))
            found |= site_figures(self._tags, ledger, rows, self._totals[place])
            self._totals[place].append(rows)
        del values[: 2 * len(look.ledgers)]
        for norms, ledger in look.norms:
            found |= gap_figures(self._tags, norms, ledger, values.pop(0))
        *tables, loss = values
        for bank, table in zip(look.banks, tables, strict=True):
            found |= parameter_figures(self._tags, bank, table)
        if look.loss:
            found[self._tags.of("", "loss")] = float(loss.mean())
        return found


def _nothing(metrics: dict[str, float], step: int) -> None:
    """Take no figures."""


def _filled(ledgers: Iterable[Ledger]) -> list[Ledger]:
    return [one for one in ledgers if one.total is not None]
