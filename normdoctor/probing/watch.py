"""`normdoctor.watch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from normdoctor.arguments import selectors
from normdoctor.probing.feed import MetricSink, log_of
from normdoctor.probing.monitor import BUDGET, OnFinding, Watch
from normdoctor.probing.verdict import chosen
from normdoctor.probing.watchwords import check_arguments, optimizers_of


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    *,
    every: int = 50,
    budget: int | None = BUDGET,
    on_finding: OnFinding = "warn",
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    sink: MetricSink | Callable[[dict[str, float], int], Any] | None = None,
) -> Watch:
    """Watch `model` in the `with` block that follows; call `step()` on the result after each step.

        with normdoctor.watch(model, optimizer) as w:
            for x, y in loader:
                loss = criterion(model(x), y)
                ...
                w.step(loss)
        print(w.report())

    The model's own forwards, gradients and updates are observed in the first step and in each `every`-th
    after it. In all steps the modes of the model are followed, in plain Python. Nothing waits for the
    device. All hooks are gone when the block ends, however it ends.

    Args:
        model: The model, or a wrapper of it: `torch.compile`, DataParallel, DistributedDataParallel, FSDP.
        optimizer: What trains it, for rules about the optimizer; its steps are seen without it too. A list
            of several where there are several.
        every: Observe each `every`-th step.
        budget: How many values of an activation are read in one forward; None reads all.
        on_finding: What to do with a finding while the training runs: `"warn"`, `"stop"` (raise
            `StoppedError`), `"ignore"`, or a callable that gets it. A finding counts once it was confirmed.
        select: Rules to judge by, by code, prefix or name; all that rest on measurements when None.
        ignore: Rules not to judge by.
        sink: Gets the figures of each look as scalars: an object with `log(metrics, step)`, or a function
            of both. Tags read `normdoctor/<module>/<metric>`, steps are counted from 0.
    """
    check_arguments(model, optimizer, every, budget, on_finding)
    optimizers = optimizers_of(optimizer)
    codes = chosen(selectors("select", select), selectors("ignore", ignore), optimizers=bool(optimizers))
    log = None if sink is None else log_of(sink)
    return Watch(model, optimizers, every, budget, on_finding, codes, log)
