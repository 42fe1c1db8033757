"""normdoctor in Lightning, as `lightning.pytorch` or as `pytorch_lightning`.

trainer = Trainer(callbacks=[NormDoctorCallback(every=50)])
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from normdoctor.errors import UsageError, kind_of
from normdoctor.integrations.called import Called
from normdoctor.integrations.extras import required
from normdoctor.integrations.session import Options, Session
from normdoctor.probing.monitor import BUDGET, OnFinding
from normdoctor.report import Report

_HOMES = ("lightning.pytorch", "pytorch_lightning")

#: After so many batches without a call of any part of the model, all of it is watched.
_PATIENCE = 8


class NormDoctorCallback:
    """Watches a training with `normdoctor.watch`; a `Callback` of whichever Lightning is imported.

    The networks that `training_step` calls are watched: found in the first batch, or named by `modules`.
    Names of layers are those inside of their network. A step is one of the optimizer: batches whose gradients
    are accumulated are one step. Validation is no training. Under several ranks the first one tells and
    logs; after the training `report()` is about all of them.

    **Logged metrics**: at each look, through all loggers of the trainer and to `sink`, with the tags of
    `normdoctor.watch`: `normdoctor/<module>/<metric>`, where `<module>` is the path of a layer inside of its
    network, behind the network's own name where there are several, and the metrics are

    - `mean`, `variance`: of the layer's output; `dead_units`: the share of ReLU units that were off in the
      last 8 looks; `saturated`: the share of values at the bounds of a sigmoid, tanh or ReLU6
    - `running_mean_gap`: how far a BatchNorm's running mean is from that of the last batches, in standard
      deviations
    - `<parameter>_gradient_rms`, `<parameter>_update_ratio`: the root mean square of the gradient that the
      optimizer got, and norm(update) / norm(parameter)
    - `normdoctor/model/loss` and `normdoctor/model/findings`: the loss, and how many findings stand

    Args:
        every: Observe each `every`-th step of the optimizer.
        on_finding: `"warn"`, `"stop"` (`trainer.should_stop`), `"ignore"`, or a function of the finding.
        budget: How many values of an activation are read in one forward; None reads all.
        select: Rules to judge by; all that rest on measurements when None.
        ignore: Rules not to judge by.
        sink: Where metrics go besides the trainer's loggers: one of `normdoctor.integrations`, or several.
        log: Log to the trainer's loggers.
        modules: Paths of the networks to watch, in the LightningModule; `""` is all of it.
        print_report: Print the report when the training is over.

    Raises:
        UsageError: For arguments that make no sense.
        MissingExtraError: Where Lightning is not installed.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> NormDoctorCallback:
        """An instance that is a Callback as well, of the Lightning that has been imported by now."""
        made: NormDoctorCallback = object.__new__(_with_bases(cls, _loaded()))
        return made

    def __init__(
        self,
        every: int = 50,
        on_finding: OnFinding = "warn",
        *,
        budget: int | None = BUDGET,
        select: str | Sequence[str] | None = None,
        ignore: str | Sequence[str] | None = None,
        sink: Any = None,
        log: bool = True,
        modules: str | Iterable[str] | None = None,
        print_report: bool = False,
    ) -> None:
        super().__init__()
        self._options = Options(
            every=every, on_finding=on_finding, budget=budget, select=select, ignore=ignore, sink=sink
        )
        self._log = log
        self._modules = None if modules is None else _paths(modules)
        self._print = print_report
        self._session = Session(self._options)
        self._called: Called | None = None
        self._batches = self._global_step = 0

    def report(self, min_confidence: str = "medium") -> Report:
        """What was found in the training so far, or in the last one."""
        return self._session.report(min_confidence)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look for the networks; sanity checks are over."""
        self._end()
        more = [functools.partial(_to_loggers, trainer)] if self._log and trainer.loggers else []
        self._session = Session(self._options, more)
        self._batches, self._global_step = 0, trainer.global_step
        if self._modules is not None:
            self._begin(trainer, pl_module, {path: _part(pl_module, path) for path in self._modules})
            return
        self._called = Called(pl_module, redirected=trainer.strategy.model is not pl_module)
        self._called.attach()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins."""
        if self._called is not None:
            self._called.fresh()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch is over, and with it a step unless gradients are accumulated."""
        if self._called is not None:
            self._batches += 1
            if self._called.found or self._batches >= _PATIENCE:
                networks = self._called.networks() or {"": pl_module}
                self._stop_looking()
                self._begin(trainer, pl_module, networks)
            self._global_step = trainer.global_step
            return
        self._session.add_loss(outputs.get("loss") if isinstance(outputs, Mapping) else outputs)
        # What steps by hand may count in any way, or forget to step.
        if trainer.global_step != self._global_step or not pl_module.automatic_optimization:
            self._global_step = trainer.global_step
            self._session.step(self._global_step)
        if self._session.stopped:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The training is over."""
        self._end()
        if self._print and trainer.is_global_zero and self._session.watches:
            print(self.report())

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The training failed, or was interrupted."""
        self._end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Whatever happened, nothing stays on the model."""
        self._stop_looking()

    def __reduce__(self) -> Any:
        # The class with the bases is made anew: where this is read, another Lightning may be imported.
        state = {key: value for key, value in vars(self).items() if key not in ("_session", "_called")}
        return _revived, (getattr(type(self), "_plain", type(self)), state)

    def _begin(self, trainer: Any, pl_module: Any, networks: Mapping[str, nn.Module]) -> None:
        name = type(pl_module).__name__
        named = {f"{name}.{path}" if path else name: one for path, one in networks.items()}
        wrapper = trainer.strategy.model  # of the whole LightningModule
        self._session.begin(named, trainer.optimizers, getattr(wrapper, "broadcast_buffers", None))

    def _stop_looking(self) -> None:
        if self._called is not None:
            self._called.detach()
            self._called = None

    def _end(self, error: BaseException | None = None) -> None:
        self._stop_looking()
        self._session.end(error)


def _paths(modules: object) -> list[str]:
    found = [modules] if isinstance(modules, str) else modules
    paths = list(found) if isinstance(found, Iterable) and not isinstance(found, Mapping) else []
    if not paths or not all(isinstance(path, str) for path in paths):
        raise UsageError(
            f"modules is {kind_of(modules)}: expected paths of networks",
            hint='For example modules="net", or modules=["generator", "critic"]; "" is the whole module.',
        )
    return [str(path) for path in paths]


def _part(root: nn.Module, path: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        known = ", ".join(f"`{name}`" for name, _ in root.named_children())
        raise UsageError(
            f"{type(root).__name__} has no module `{path}`", hint=f"Its modules are {known}."
        ) from None


def _to_loggers(trainer: Any, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def _loaded() -> tuple[type, ...]:
    """The Callback of each Lightning that is imported; where none is, of the one that is installed."""
    homes = [sys.modules[name] for name in _HOMES if hasattr(sys.modules.get(name), "Callback")]
    return tuple(one.Callback for one in homes or [required(*_HOMES, package="normdoctor[lightning]")])


_made: dict[tuple[type, ...], type] = {}


def _with_bases(cls: type, bases: tuple[type, ...]) -> type:
    """The class with those of the bases that it has not; the same one each time."""
    missing = tuple(base for base in bases if not issubclass(cls, base))
    if not missing:
        return cls
    if (cls, *missing) not in _made:
        said = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        _made[cls, *missing] = type(cls.__name__, (cls, *missing), said | {"_plain": cls})
    return _made[cls, *missing]


def _revived(cls: type[NormDoctorCallback], state: dict[str, Any]) -> NormDoctorCallback:
    made = cls.__new__(cls)
    vars(made).update(state)
    made._session, made._called = Session(made._options), None
    return made
