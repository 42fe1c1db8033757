"""Where the figures of a watch can go: TensorBoard, Weights & Biases, MLflow, a file.

Each takes `log(metrics, step)`; so does any object or function of one's own.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from normdoctor.errors import UsageError, kind_of
from normdoctor.integrations.extras import required
from normdoctor.probing.feed import MetricSink

__all__ = ["JsonLines", "MLflow", "MetricSink", "TensorBoard", "WandB"]

#: How many metrics MLflow's servers take in one request.
_MOST = 1000


class TensorBoard:
    """Scalars of TensorBoard, grouped by module.

    Args:
        writer: A `SummaryWriter`, or the folder to write to; a writer of one's own is not closed.
    """

    def __init__(self, writer: Any) -> None:
        if isinstance(writer, str | os.PathLike):
            home = required("torch.utils.tensorboard", package="tensorboard")
            writer = home.SummaryWriter(os.fspath(writer))
        if not callable(getattr(writer, "add_scalar", None)):
            raise UsageError(f"writer is {kind_of(writer)}: expected a SummaryWriter or a folder")
        self.writer = writer

    def log(self, metrics: dict[str, float], step: int, /) -> None:
        """Write one event for each metric."""
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()


class WandB:
    """Charts of Weights & Biases, over an axis of their own: `normdoctor/step`.

    So they can be logged beside what the training logs under steps of its own.

    Args:
        run: What `wandb.init` returned; the current run when None.
    """

    def __init__(self, run: Any = None) -> None:
        self.run = required("wandb", package="wandb").run if run is None else run
        if self.run is None or not hasattr(self.run, "define_metric"):
            raise UsageError(
                f"run is {kind_of(self.run)}: expected a run of wandb", hint="Call wandb.init() before."
            )
        self.run.define_metric("normdoctor/step", hidden=True)
        self.run.define_metric("normdoctor/*", step_metric="normdoctor/step")

    def log(self, metrics: dict[str, float], step: int, /) -> None:
        """Log one row."""
        self.run.log({**metrics, "normdoctor/step": step})


class MLflow:
    """Metrics of a run of MLflow.

    Args:
        run_id: The run; the active one when None.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self._mlflow = required("mlflow", package="mlflow-skinny")
        if run_id is None and (active := self._mlflow.active_run()) is None:
            hint = "Call mlflow.start_run() before, or pass run_id."
            raise UsageError("MLflow has no active run", hint=hint)
        self.run_id: str = run_id if run_id is not None else active.info.run_id

    def log(self, metrics: dict[str, float], step: int, /) -> None:
        """Log all metrics in as few requests as the server takes."""
        left = iter(metrics.items())
        while part := dict(islice(left, _MOST)):
            self._mlflow.log_metrics(part, step=step, run_id=self.run_id)


class JsonLines:
    """A file with one line of JSON a look: `{"step": 50, "metrics": {...}}`; what is not finite is null.

    Args:
        path: The file; lines are appended.

    Raises:
        UsageError: There is no such folder, or the path is that of a folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise UsageError(
                f"cannot write figures to {self.path}: expected a file in a folder that exists",
                hint='For example JsonLines("figures.jsonl").',
            )

    def log(self, metrics: dict[str, float], step: int, /) -> None:
        """Append one line."""
        line = msgspec.json.encode({"step": step, "metrics": metrics})
        with self.path.open("ab") as file:
            file.write(line + b"\n")
