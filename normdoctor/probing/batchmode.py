"""Which statistics `F.batch_norm` uses in a forward, decided from the outside: nothing of the model moves."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from normdoctor.probing.calls import Classifier
from normdoctor.probing.normstats import NormCall

#: Called with the place of a call among those of batch_norm, and the call, before it runs.
OnCall = Callable[[int, NormCall], None]


class BatchMode(TorchFunctionMode):
    """Runs the batch norms of one forward, modules and functions alike, on the statistics that are wanted.

    Those with running statistics use the batch's where their place (counted in the order of the calls) is
    in `batch`, or everywhere when that is None; elsewhere the running ones, or those in `running`. One that
    has a single value a channel keeps its running statistics. No buffer is updated by those on the batch.
    """

    def __init__(
        self,
        batch: Container[int] | None = None,
        running: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        super().__init__()
        self.batch = batch
        self.running = running or {}
        self.on_call = on_call
        self.calls = 0
        self._classify = Classifier()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        call = NormCall.of(args, given) if self._classify(func)[0] == "batch_norm" else None
        if call is None:
            return func(*args, **given)
        place = self.calls
        self.calls += 1
        if call.mean is None:
            return func(*args, **given)
        if self.on_call is not None:
            with torch.no_grad():
                self.on_call(place, call)
        several = call.value.numel() > call.value.shape[1]
        if several and (self.batch is None or place in self.batch):
            return F.batch_norm(call.value, None, None, call.weight, call.bias, True, 0.0, call.eps)
        if (known := self.running.get(place)) is not None:
            return F.batch_norm(call.value, *known, call.weight, call.bias, False, 0.0, call.eps)
        return func(*args, **given)
