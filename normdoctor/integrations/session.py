"""A training that a framework runs: its watches, begun, stepped and ended by the framework's callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from normdoctor.arguments import selectors
from normdoctor.config import check_confidence
from normdoctor.errors import UsageError
from normdoctor.facts import Facts
from normdoctor.findings import Finding
from normdoctor.probing.feed import Log, log_of
from normdoctor.probing.live import NormDoctorWarning, told
from normdoctor.probing.monitor import BUDGET, OnFinding, Watch
from normdoctor.probing.ranks import gathered, size
from normdoctor.probing.verdict import chosen, judged
from normdoctor.probing.watch import watch
from normdoctor.probing.watchwords import check_settings
from normdoctor.report import Report


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the callbacks of all frameworks are told; wrong values are refused here, before a training."""

    every: int = 50
    on_finding: OnFinding = "warn"
    budget: int | None = BUDGET
    select: str | Sequence[str] | None = None
    ignore: str | Sequence[str] | None = None
    sink: Any = None
    codes: tuple[str, ...] = field(init=False)
    logs: tuple[Log, ...] = field(init=False)

    def __post_init__(self) -> None:
        check_settings(self.every, self.budget, self.on_finding)
        codes = chosen(selectors("select", self.select), selectors("ignore", self.ignore))
        object.__setattr__(self, "codes", codes)
        sinks = self.sink if isinstance(self.sink, list | tuple) else [self.sink]
        object.__setattr__(self, "logs", tuple(log_of(one) for one in sinks if one is not None))


class Session:
    """The watches of one training. `stopped`: a finding asks for the end, on any rank.

    On ranks other than the first nothing is judged, told or logged while the training runs.
    """

    def __init__(self, options: Options, more: Sequence[Log] = ()) -> None:
        self.options = options
        self.stopped = False
        self.watches: list[Watch] = []
        self._logs = (*options.logs, *more)
        self._stack = ExitStack()
        self._steps = 0
        self._at: dict[int, int] = {}
        self._losses: list[Tensor] = []
        self._joint: list[Facts] = []

    def begin(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        broadcasts: bool | None = None,
    ) -> None:
        """Watch these models, by the name that reports give them; for `broadcasts` see `Watch`."""
        first = _rank() == 0
        told_by: Any = "ignore" if not first else self._stop if self._stops else self.options.on_finding
        for name, model in models.items():
            prefix = f"{name.rpartition('.')[2]}." if len(models) > 1 else ""
            made = watch(
                model,
                [one for one in optimizers if _trains(one, model)],
                every=self.options.every,
                budget=self.options.budget,
                on_finding=told_by,
                select=self.options.codes,
                sink=self._log(prefix) if first and self._logs else None,
            )
            made.facts_of.name = name
            if broadcasts is not None:
                made.broadcasts = broadcasts
            self.watches.append(self._stack.enter_context(made))

    def add_loss(self, loss: Any) -> None:
        """Note the loss of a part of the step, where it is a tensor of one number."""
        if isinstance(loss, Tensor) and loss.numel() == 1 and not loss.is_complex():
            self._losses.append(loss.detach().reshape(()))

    def step(self, at: int) -> None:
        """A step of the optimizer is over; the framework counts it as `at`."""
        losses, self._losses = self._losses, []
        # Of several models nobody knows whose loss it is.
        loss = torch.stack(losses) if losses and len(self.watches) == 1 else None
        self._at[self._steps] = at
        for one in self.watches:
            one.step(loss)
        self._steps += 1
        self._at.pop(self._steps - 8 * self.options.every, None)
        if self._stops and size() > 1 and self._steps % self.options.every == 0:
            self.stopped = any(gathered(self.stopped))

    def end(self, error: BaseException | None = None) -> None:
        """Take all hooks off. Without an error, join what several ranks saw: collective."""
        stack, self._stack = self._stack, ExitStack()
        if error is not None:
            stack.__exit__(type(error), error, error.__traceback__)
            return
        stack.close()
        if size() > 1:
            self._joint = [one.facts(all_ranks=True) for one in self.watches]

    def report(self, min_confidence: str = "medium") -> Report:
        """Of all models that were watched, and of all ranks once the training is over."""
        check_confidence(min_confidence)
        if not self.watches:
            raise UsageError("nothing was watched yet", hint="Call report() after the training.")
        facts = self._joint or [one.facts() for one in self.watches]
        return judged(facts, self.watches[0].codes, min_confidence)

    @property
    def _stops(self) -> bool:
        return self.options.on_finding == "stop"

    def _stop(self, finding: Finding) -> None:
        self.stopped = True
        warnings.warn(f"the training is stopped: {told(finding)}", NormDoctorWarning, stacklevel=2)

    def _log(self, prefix: str) -> Log:
        def log(metrics: dict[str, float], step: int) -> None:
            if prefix:
                metrics = {tag.replace("/", f"/{prefix}", 1): value for tag, value in metrics.items()}
            at = self._at.get(step, step)
            for one in self._logs:
                one(metrics, at)

        return log


def _trains(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    own = {id(one) for one in model.parameters()}
    return any(id(one) in own for group in optimizer.param_groups for one in group["params"])


def _rank() -> int:
    return dist.get_rank() if size() > 1 else 0
