"""normdoctor in the Trainer of Hugging Face.

trainer = Trainer(model, args, train_dataset=data, callbacks=[NormDoctorCallback(every=50)])
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from normdoctor.integrations.extras import required
from normdoctor.integrations.session import Options, Session
from normdoctor.loading.wrappers import unwrapped
from normdoctor.probing.hooks import Hook, in_backward
from normdoctor.probing.monitor import BUDGET, OnFinding
from normdoctor.probing.ranks import size
from normdoctor.report import Report

if TYPE_CHECKING:
    from transformers import TrainerCallback
else:
    TrainerCallback = required("transformers", package="normdoctor[transformers]").TrainerCallback


class NormDoctorCallback(TrainerCallback):
    """Watches a training of `transformers.Trainer` with `normdoctor.watch`.

    A step is one of the optimizer: batches whose gradients are accumulated are one step. Evaluation is no
    training. Under several ranks the first one tells and logs; after the training `report()` is about all.
    The Trainer tells its callbacks of no exception: where one has to leave no hook behind, use a context,

        with NormDoctorCallback() as doctor:
            Trainer(..., callbacks=[doctor]).train()

    or call `close()`; the next training does so as well.

    **Logged metrics**: at each look, to `sink`; the tags are those of `normdoctor.watch`, see
    `normdoctor.integrations.lightning`. The step is the Trainer's `global_step`.

    Args:
        every: Observe each `every`-th step of the optimizer.
        on_finding: `"warn"`, `"stop"` (`control.should_training_stop`), `"ignore"`, or a function of the
            finding.
        budget: How many values of an activation are read in one forward; None reads all.
        select: Rules to judge by; all that rest on measurements when None.
        ignore: Rules not to judge by.
        sink: Where metrics go: one of `normdoctor.integrations`, or several.
        print_report: Print the report when the training is over.

    Raises:
        UsageError: For arguments that make no sense.
    """

    def __init__(
        self,
        every: int = 50,
        on_finding: OnFinding = "warn",
        *,
        budget: int | None = BUDGET,
        select: str | Sequence[str] | None = None,
        ignore: str | Sequence[str] | None = None,
        sink: Any = None,
        print_report: bool = False,
    ) -> None:
        super().__init__()
        self._options = Options(
            every=every, on_finding=on_finding, budget=budget, select=select, ignore=ignore, sink=sink
        )
        self._print = print_report
        self._session = Session(self._options)
        self._model: nn.Module | None = None
        self._handle: Any = None

    def report(self, min_confidence: str = "medium") -> Report:
        """What was found in the training so far, or in the last one."""
        return self._session.report(min_confidence)

    def close(self, error: BaseException | None = None) -> None:
        """Take all hooks off the model."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._model is not None:
            self._model = None
            self._session.end(error)

    def __enter__(self) -> NormDoctorCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Begin to watch."""
        self.close(InterruptedError("the last training was left"))
        self._begin(args, known)

    def on_step_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Watch what is trained now: the model may have been wrapped or exchanged."""
        if unwrapped(known["model"]) is not self._model:
            self.close(InterruptedError("the model was exchanged"))
            self._begin(args, known)

    def on_step_end(self, args: Any, state: Any, control: Any, **known: Any) -> Any:
        """A step of the optimizer is over."""
        self._session.step(state.global_step)
        if self._session.stopped:
            control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """The training is over."""
        self.close()
        if self._print and state.is_world_process_zero and self._session.watches:
            print(self.report())

    def _begin(self, args: Any, known: dict[str, Any]) -> None:
        self._model = model = unwrapped(known["model"])
        self._session = Session(self._options)
        optimizer = known.get("optimizer")
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        optimizers = [inner] if isinstance(inner, torch.optim.Optimizer) else []
        # The Trainer hands its callbacks the model without DistributedDataParallel, whose default is True.
        broadcasts = getattr(args, "ddp_broadcast_buffers", None) is not False if size() > 1 else None
        self._session.begin({type(model).__name__: known["model"]}, optimizers, broadcasts)
        self._handle = model.register_forward_hook(Hook(self._note_loss))

    def _note_loss(self, module: nn.Module, args: Any, output: Any) -> None:
        """The loss of a batch, which the Trainer tells nobody; not that of evaluation."""
        if torch.compiler.is_compiling() or in_backward() or module is not self._model:
            return
        if torch.is_grad_enabled() and module.training:
            self._session.add_loss(getattr(output, "loss", None))
