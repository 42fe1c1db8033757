"""Measuring a model while somebody else's loop trains it: what `normdoctor.watch` returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from normdoctor.config import check_confidence
from normdoctor.errors import UsageError
from normdoctor.facts import Facts
from normdoctor.findings import Finding, Severity
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.eager import eager
from normdoctor.probing.feed import Feed, Log
from normdoctor.probing.gradients import GradientCollector
from normdoctor.probing.hooks import Observer
from normdoctor.probing.live import Alert, Alerts, Judgement, NormDoctorWarning, StoppedError, told
from normdoctor.probing.losses import Losses
from normdoctor.probing.modetracker import ModeTracker
from normdoctor.probing.plan import planned
from normdoctor.probing.probe import Measurements
from normdoctor.probing.ranks import demand_ranks, everywhere, gathered, together
from normdoctor.probing.series import History
from normdoctor.probing.transfer import Transfer
from normdoctor.probing.verdict import completed, judged
from normdoctor.probing.watchfacts import WatchedFacts
from normdoctor.probing.watchwords import check_loss

if TYPE_CHECKING:
    from normdoctor.report import Report

OnFinding = Literal["warn", "stop", "ignore"] | Callable[[Finding], None]

#: How many values of an activation are looked at in one forward.
BUDGET = 2**13

#: Looks after which findings are judged, counted within a window of looks; measurements of activations
#: start anew when a window is full, so that a long training is judged by what it does now.
JUDGED = (3, 6, 12, 24, 48, 96, 192)
WINDOW = 256


class Watch:
    """A watched training. `steps` counts the calls of `step`, `observed` the steps that were looked at.

    `alerts` are the findings that were raised, or are on trial, while it runs.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: tuple[torch.optim.Optimizer, ...],
        every: int,
        budget: int | None,
        on_finding: OnFinding,
        codes: tuple[str, ...],
        log: Log | None,
    ) -> None:
        self.model = unwrapped(model)
        #: Does what wraps the model hand out the buffers of the first rank before each forward?
        self.broadcasts: bool | None = getattr(model, "broadcast_buffers", None)
        self.every = every
        self.budget = budget
        self.steps = 0
        self.observed = 0
        self._on_finding = on_finding
        self._observer = self._new_observer()
        self.codes = codes
        self._feed = None if log is None else Feed(self.model, log)
        self.facts_of = WatchedFacts(self.model, optimizers)
        self._gradients = GradientCollector(self.model)
        self._modes = ModeTracker(self.model, model, self.facts_of.note_inputs)
        self._losses = Losses()
        self._alerts = Alerts()
        self._judgement: Judgement | None = None
        self._bad: Transfer | None = None
        self._bad_before = 0
        self._window: Measurements = {}
        self._history = History()
        self._earlier: Observer | None = None
        self._active = self._attached = False
        self._forwards = self._seen = self._looks = 0

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Findings that were raised while the training ran, with the step, and whether they are cleared."""
        return tuple(alert for alert in self._alerts.alerts if alert.raised is not None)

    def __enter__(self) -> Watch:
        if self._active:
            hint = "Make a second one with normdoctor.watch(model)."
            raise UsageError("this watch is already running", hint=hint)
        self._active = True
        try:
            self._modes.attach()
            self._gradients.open()
            self._attach()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self._feed is not None:  # after an exception only what is there: the device may be gone
            self._feed.drain(self._standing(), wait=kind is None)
        if kind is None and self._on_finding != "ignore":
            already = {one.code for alert in self.alerts for one in (alert.finding, *alert.consequences)}
            for finding in self.report().findings:
                if finding.code not in already and finding.severity is not Severity.INFO:
                    self._tell(finding, ())

    def step(self, loss: Tensor | float | None = None) -> None:
        """Say that a step is over. A `loss` is checked to be finite, without waiting for its value.

        Of losses of several values (one for each sample) the history holds the mean.
        """
        if not self._active:
            hint = "Call it inside of `with normdoctor.watch(model) as w:`."
            raise UsageError("step() was called outside of the watch", hint=hint)
        known = None if loss is None else check_loss(loss)
        if known is not None:
            self._losses.add(known, self.steps)
        looked = self._attached
        seen = self._detach()
        if self._feed is not None:
            self._feed.add(self.steps, self._observer if seen else None, self._gradients, known)
            self._feed.drain(self._standing())
        self._modes.step()
        self.steps += 1
        self._collect()
        if looked and self._judgement is None and self._due():
            self._judge()
        if self.steps % self.every == 0 and self._judgement is None:
            self._attach()

    def measurements(self, *, all_ranks: bool = False) -> Measurements:
        """What was measured so far, see `report`. This reads from the device, so it waits for it."""
        if all_ranks:
            demand_ranks()
            found = together(self._measured)
            self._join(found)
        else:
            found = self._measured()
        self._history.note(found, self.steps)
        return found

    def report(self, *, min_confidence: str = "medium", all_ranks: bool = False) -> Report:
        """Judge what was measured so far, by the rules that rest on measurements.

        With `all_ranks`, of activations, norms, gradients and updates what all ranks of `torch.distributed`
        saw together, and norms are compared between ranks. Then all of them have to call it, also one that
        got fewer batches or none. Modes and losses are those of the rank itself.
        """
        check_confidence(min_confidence)
        return judged([self.facts(all_ranks=all_ranks)], self.codes, min_confidence)

    def facts(self, *, all_ranks: bool = False) -> Facts:
        """What `report` judges: the model, with its graph where it can be recorded, and the measurements."""
        measurements = self.measurements(all_ranks=all_ranks)
        attached = self._attached
        self._suspend(off=True)
        eager.enter(self.facts_of)
        try:
            facts = self.facts_of.recorded()
        finally:
            eager.leave(self.facts_of)
            self._suspend(off=False, attached=attached)
        return completed(facts, measurements, self._notes(measurements))

    def history(self) -> dict[str, dict[str, dict[str, list[tuple[int, float]]]]]:
        """Every statistic over the run: need, site and statistic to points (step, value).

        Gradients, updates and the loss have a point for each look, activations one for each judgement; of
        long runs at most 64 points are kept, evenly spread. This reads from the device.
        """
        self._settle()
        self.measurements()
        kept = Transfer(self._gradients.history()).wait() if self._gradients.banks else []
        found = self._history.points()
        found["gradients"] = self._gradients.series(kept)
        found["losses"] = {"loss": {"value": self._losses.points()}}
        return found

    def _measured(self) -> Measurements:
        self._settle()
        return self._read(Transfer(self._tensors()).wait())

    def _join(self, found: Measurements) -> None:
        """Put what all ranks saw in the place of what this one did. Collective."""
        observer = self._observer
        if self._earlier is not None and observer.forwards < JUDGED[0]:
            observer = self._earlier
        batches = gathered(self._forwards + self._observer.forwards)
        if sum(batches):
            found |= everywhere(observer.collectors, self._gradients, self.model, self.broadcasts)
            found["run"] = {"source": "watch", "batches": sum(batches), "ranks": len(batches)}

    def _new_observer(self) -> Observer:
        # With a budget the origins of NaN are not traced, which would take memory for each forward.
        observer = Observer(self.model, planned(budget=self.budget or sys.maxsize))
        observer.accepts = torch.is_grad_enabled
        return observer

    def _tensors(self) -> list[Tensor]:
        return [
            *(one for collector in self._observer.collectors for one in collector.tensors()),
            *self._gradients.tensors(),
            *self._modes.tensors(),
            *self._losses.tensors(),
        ]

    def _read(self, values: Sequence[Tensor]) -> Measurements:
        """Figures from the copies of `_tensors()`."""
        left = list(values)

        def take(count: int) -> list[Tensor]:
            taken, left[:count] = left[:count], []
            return taken

        found: Measurements = {}
        collectors = self._observer.collectors
        shares = [take(len(collector.tensors())) for collector in collectors]
        if self._observer.forwards and self._observer.shown:
            found |= {c.need: c.read(share) for c, share in zip(collectors, shares, strict=True)}
        if self._window and self._observer.forwards < JUDGED[0]:
            found |= self._window
        gradients = self._gradients.read(take(len(self._gradients.tensors())))
        found |= gradients
        modes = take(len(self._modes.tensors()))
        if self._modes.seen or self._observer.forwards:
            found["modes"] = self._modes.read(modes, updated=self._gradients.stepped)
        if self._losses.steps:
            found["losses"] = self._losses.read(take(len(self._losses.tensors())))
        if found:
            found["run"] = {"source": "watch", "batches": self._forwards + self._observer.forwards}
        return found

    def _due(self) -> bool:
        """Is it time to judge? After some looks of a window, and when something was not finite."""
        if self._on_finding == "ignore":
            return False
        if self._observer.forwards >= WINDOW or self._looks in JUDGED:
            return True
        bad = self._bad_before
        if self._bad is not None and self._bad.arrived:
            bad = sum(int(value) for one in self._bad.wait() for value in one.flatten().tolist())
        worse, self._bad_before = bad > self._bad_before, bad
        return worse

    def _judge(self) -> None:
        """Begin to judge what was measured so far; nothing is observed until that is done."""
        self._gradients.abandon()  # also a look that waits for the optimizer
        transfer = Transfer(self._tensors(), still=True)
        facts, full = self.facts_of.plain(), self._observer.forwards >= WINDOW

        def judge(arrived: Transfer) -> Sequence[Finding]:
            measurements = self._read(arrived.wait())
            self._history.note(measurements, self.steps)
            if full:
                needs = {collector.need for collector in self._observer.collectors}
                self._window = {need: measurements[need] for need in needs if need in measurements}
            found = completed(facts, measurements, self._notes(measurements))
            return judged([found], self.codes, views=False).findings

        self._judgement = Judgement(transfer, judge, self.steps)

    def _collect(self, *, wait: bool = False) -> None:
        """Take in a judgement that is ready."""
        if self._judgement is None or not (wait or self._judgement.due):
            return
        judgement, self._judgement = self._judgement, None
        findings = judgement.collect()
        if self._observer.forwards >= WINDOW:
            self._forwards += self._observer.forwards
            self._earlier, self._observer = self._observer, self._new_observer()
            self._seen = self._looks = 0
        for alert in self._alerts.consider(findings, judgement.step):
            self._tell(alert.finding, alert.consequences, live=True)

    def _settle(self) -> None:
        if self._judgement is not None:
            self._collect(wait=True)

    def _notes(self, measurements: Measurements) -> list[str]:
        notes = [f"watched {self.observed} of {self.steps or 1} steps"]
        if not self.steps and self._gradients.stepped:
            notes.append("step() was never called, so only the first step could be observed")
        if not self._forwards + self._observer.forwards:
            kind = "with gradients " if self._modes.seen else ""
            notes.append(f"no forward {kind}of the model was seen")
        elif "gradients" not in measurements and self.steps:
            notes.append("no gradient was seen: nothing can be said about gradients and updates")
        losses = measurements.get("losses", {}).get("loss", {})
        if losses.get("not_finite"):
            notes.append(f"the loss was not finite in {losses['not_finite']} of {losses['steps']} steps")
        notes += self._observer.blindness(self._observer.forwards)
        if self._modes.compiled and self.every > 1:
            notes.append("the model is compiled in place: its modes are known of observed steps only")
        return notes

    def _tell(self, finding: Finding, consequences: Sequence[Finding], *, live: bool = False) -> None:
        if callable(self._on_finding):
            self._on_finding(finding)
        elif live and self._on_finding == "stop":
            raise StoppedError(finding, self.steps)
        elif self._on_finding != "ignore":
            warnings.warn(told(finding, consequences), NormDoctorWarning, stacklevel=4 if live else 3)

    def _suspend(self, *, off: bool, attached: bool = False) -> None:
        """Hold back the hooks while the model is run for a recording."""
        self._modes.paused = off
        if off and self._attached:
            self._observer.detach()
        elif not off and attached:
            self._observer.attach()

    def _attach(self) -> None:
        self._attached = True
        eager.enter(self)
        self._modes.observed = True
        self._gradients.half = self._modes.half
        self._observer.attach()
        self._gradients.attach()

    def _standing(self) -> int:
        return sum(alert.cleared is None for alert in self.alerts)

    def _detach(self) -> bool:
        """End a look, if one was on; was a forward seen in it?"""
        eager.leave(self)
        if self._attached or self._gradients.waits:
            self._note_gradients()
        if not self._attached:
            return False
        self._attached = self._modes.observed = False
        self._observer.detach()
        seen, self._seen = self._observer.forwards > self._seen, self._observer.forwards
        if seen:
            self._looks += 1
            self.observed += 1
            self._observer.looked(self._looks)
        if self._observer.forwards >= JUDGED[0]:
            self._earlier = None
        return seen

    def _note_gradients(self) -> None:
        if self._gradients.detach(self.steps) and (bad := self._gradients.bad()) is not None:
            self._bad = Transfer([bad, *self._losses.tensors()[:1]])

    def _close(self) -> None:
        """Take everything off the model."""
        try:
            self._observer.detach()
            self._gradients.close()
        finally:
            self._modes.detach()
            eager.leave(self)
            self._attached = self._active = False
