"""The data of a check: found by its name, fed to one target after another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec
import torch

from normdoctor.errors import UsageError
from normdoctor.facts import Facts
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.isolation import Imports, generators, kept_in_place
from normdoctor.loading.objects import load_with_imports
from normdoctor.loading.soundness import foreign_errors
from normdoctor.loading.target import Target
from normdoctor.output.progress import Progress
from normdoctor.probing.data import Feed, batches
from normdoctor.probing.probe import measure
from normdoctor.probing.synthetic import SYNTHETIC, synthetic
from normdoctor.tracing.examine import Examination, usable_device

#: Says over what nothing was measured, where only a batch size was stated.
NO_RUN = {"source": "none", "batches": 0}


class Source:
    """Where the measured rules get their batches.

    Args:
        data: What the user gave: batches, a function that returns them, a target string of either,
            `"synthetic"`, or None where only a batch size was stated.
        count: How many batches are read for each target.
        batch_size: The batch size of the training, where it is stated.
        to_inputs: The user's `batch_to_inputs`.
        progress: Show on a terminal how far it is.
        all_ranks: Measure over the data of all ranks of `torch.distributed`.
    """

    def __init__(
        self,
        data: Any,
        count: int,
        batch_size: int | None = None,
        to_inputs: Callable[[Any], Any] | None = None,
        *,
        progress: bool = False,
        all_ranks: bool = False,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.to_inputs = to_inputs
        self.progress = progress
        self.all_ranks = all_ranks
        self.synthetic = isinstance(data, str) and data == SYNTHETIC
        self.name = "the data"
        self._imports: Imports | None = None
        if isinstance(data, str) and not self.synthetic:
            self.name = data
            data, self._imports = load_with_imports(data, "the data")
        self.data = data
        if self.synthetic and to_inputs is not None:
            raise UsageError(
                "batch_to_inputs has nothing to do on synthetic data", hint="Leave one of them out."
            )
        if all_ranks and (data is None or self.synthetic):
            raise UsageError("all_ranks=True needs data of each rank's own", hint="Pass data= as well.")
        if self._imports is not None or (data is not None and not self.synthetic):
            with self._active(), foreign_errors(self.name):
                self.data = batches(data, self.name)
                self._hold()

    def example(self, target: Target) -> ExampleInputs | None:
        """The first batch as inputs for a recording; None where there are no data of the user's own.

        With several ranks there is none either: all are to record the same, and a rank may have no batch.
        """
        if self.data is None or self.synthetic or self.all_ranks or target.scripted:
            return None
        feed = Feed(self.data, self.name, 1, self.batch_size, self.to_inputs)
        aside = contextlib.redirect_stdout(sys.stderr)
        with kept_in_place(), self._active(), target.active(), foreign_errors(self.name), aside:
            call = next(feed.calls(target.model), None)
        return None if call is None else ExampleInputs(*call, source="data")

    def measured(
        self, target: Target, examination: Examination, needs: Collection[str], device: str | None
    ) -> Facts:
        """The facts of a target with what its rules need to know from the data."""
        facts = examination.facts
        if self.data is None:
            run = {"run": {**NO_RUN, "batch_size": self.batch_size}}
            return msgspec.structs.replace(facts, measurements={**(facts.measurements or {}), **run})
        recording = examination.recording
        if not needs or (self.synthetic and recording is None):
            return facts
        training = None
        if self.synthetic and recording is not None:
            training = recording.training if target.model.training else None
            feed = synthetic(recording.example, self.count, self.batch_size)
        else:
            feed = Feed(self.data, self.name, self.count, self.batch_size, self.to_inputs)
        put_on: torch.device | None = usable_device(device)
        shown = Progress(f"measuring {target.name}") if self.progress else None
        try:
            with kept_in_place(), self._active(), target.active(), contextlib.redirect_stdout(sys.stderr):
                return measure(
                    target.model,
                    feed,
                    facts,
                    needs=needs,
                    device=put_on,
                    training=training,
                    on_batch=shown,
                    all_ranks=self.all_ranks,
                )
        finally:
            if shown is not None:
                shown.close()

    @contextmanager
    def _active(self) -> Iterator[None]:
        """Put the modules of the data's file in place, for a loader that imports; seed one that shuffles."""
        if self._imports is None:
            yield
            return
        with self._imports.active(), generators():
            yield

    def _hold(self) -> None:
        """Keep the batches of an iterator, which can be read once, for all targets."""
        if isinstance(self.data, Iterator):
            self.data = Held(self.data, self.count)


class Held:
    """The first batches of an iterator, read when they are first wanted."""

    def __init__(self, iterator: Iterator[Any], count: int) -> None:
        self._rest = islice(iterator, count)
        self._read: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        yield from self._read
        for batch in self._rest:
            self._read.append(batch)
            yield batch
