"""`normdoctor.watch`: measuring a model while somebody else's loop trains it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from normdoctor.errors import UsageError, kind_of
from normdoctor.facts import Facts
from normdoctor.findings import Finding
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.hooks import Observer
from normdoctor.probing.plan import planned
from normdoctor.probing.probe import Measurements

if TYPE_CHECKING:
    from normdoctor.report import Report

OnFinding = Literal["warn", "ignore"] | Callable[[Finding], None]

#: How many values of an activation are looked at in one step.
BUDGET = 2**20


class NormDoctorWarning(UserWarning):
    """A finding of a watched training."""


def watch(model: nn.Module, *, every: int = 50, on_finding: OnFinding = "warn") -> Watch:
    """Watch `model` in the `with` block that follows; call `step()` on the result after each step.

        with normdoctor.watch(model) as w:
            for x, y in loader:
                loss = criterion(model(x), y)
                ...
                w.step(loss)
        print(w.report())

    The model's own forwards are observed in the first step and in each `every`-th after it; in the others
    nothing is attached to it. All hooks are gone when the block ends, however it ends. Findings are judged
    then: `on_finding` warns, ignores, or is called with each.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to watch, found {type(model).__name__}")
    if type(every) is not int or every < 1:
        raise UsageError(f"every counts steps and is at least 1; got {every!r}")
    if on_finding not in ("warn", "ignore") and not callable(on_finding):
        raise UsageError(f"on_finding is 'warn', 'ignore' or a callable; got {on_finding!r}")
    return Watch(model, every, on_finding)


class Watch:
    """A watched training. `steps` counts the calls of `step`, `observed` the steps that were looked at."""

    def __init__(self, model: nn.Module, every: int, on_finding: OnFinding) -> None:
        self.model = unwrapped(model)
        self.every = every
        self.steps = 0
        self.observed = 0
        self._on_finding = on_finding
        self._observer = Observer(self.model, planned(budget=BUDGET))
        self._active = False
        self._forwards = 0
        self._stance: Any = None
        self._losses = 0
        self._bad_losses: Tensor | None = None

    def __enter__(self) -> Watch:
        if self._active:
            hint = "Make a second one with normdoctor.watch(model)."
            raise UsageError("this watch is already running", hint=hint)
        self._active = True
        self._attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()
        self._active = False
        if kind is None and self._on_finding != "ignore":
            for finding in self.report().findings:
                self._tell(finding)

    def step(self, loss: Tensor | float | None = None) -> None:
        """Say that a step is over. A `loss` is checked to be finite, without waiting for its value."""
        if not self._active:
            hint = "Call it inside of `with normdoctor.watch(model) as w:`."
            raise UsageError("step() was called outside of the watch", hint=hint)
        if loss is not None:
            if not isinstance(loss, Tensor | float | int):
                raise UsageError(f"loss is {kind_of(loss)}: expected a tensor or a number")
            self._note(loss)
        self._detach()
        self.steps += 1
        if self.steps % self.every == 0:
            self._attach()

    def measurements(self) -> Measurements:
        """What was measured so far. This reads from the device, so it waits for it."""
        found: Measurements = {}
        if self._observer.forwards:
            found |= self._observer.read()
            found["run"] = {"source": "watch", "batches": self._observer.forwards}
        if self._bad_losses is not None:
            found["losses"] = {"loss": {"steps": self._losses, "not_finite": int(self._bad_losses)}}
        return found

    def report(self) -> Report:
        """Judge what was measured so far, by the rules that rest on measurements."""
        from normdoctor.config import Settings
        from normdoctor.rules import all_rules
        from normdoctor.running import check_facts

        measured = tuple(rule.code for rule in all_rules() if rule.needs)
        return check_facts([self._facts()], Settings(select=measured))

    def _facts(self) -> Facts:
        from normdoctor.loading.construction import origins_for
        from normdoctor.loading.state import inventory
        from normdoctor.tracing.extract import module_facts, parameter_facts

        parts, measurements = inventory(self.model), self.measurements()
        notes = [f"watched {self.observed} of {self.steps or 1} steps"]
        if not self._observer.forwards:
            notes.append("no forward of the model was seen")
        losses = measurements.get("losses", {}).get("loss", {})
        if losses.get("not_finite"):
            notes.append(f"the loss was not finite in {losses['not_finite']} of {losses['steps']} steps")
        return Facts(
            target=type(self.model).__name__,
            modules=module_facts(parts, origins_for(self.model), {}, {}, {}),
            parameters=parameter_facts(parts),
            measurements=measurements,
            training=self.model.training,
            notes=tuple(notes),
        )

    def _tell(self, finding: Finding) -> None:
        if callable(self._on_finding):
            self._on_finding(finding)
        else:
            text = f"{finding.code} {finding.name}: {finding.message}"
            warnings.warn(text, NormDoctorWarning, stacklevel=3)

    def _note(self, loss: Tensor | float) -> None:
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        bad = (~torch.isfinite(value)).any().to(torch.int64)
        self._bad_losses = bad if self._bad_losses is None else self._bad_losses + bad
        self._losses += 1

    def _attach(self) -> None:
        if _may_be_compiled():
            # Code that was compiled before runs no new hooks: let this step run as written.
            self._stance = torch.compiler.set_stance("force_eager")
        self._observer.attach()

    def _detach(self) -> None:
        self._observer.detach()
        if self._observer.forwards > self._forwards:
            self._forwards = self._observer.forwards
            self.observed += 1
        if self._stance is not None:
            stance, self._stance = self._stance, None
            stance.__exit__(None, None, None)


def _may_be_compiled() -> bool:
    """Has anything been compiled in this process? `torch.compile` imports torch._dynamo."""
    return "torch._dynamo" in sys.modules
