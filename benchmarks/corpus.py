"""Small model files with a known verdict: reported faults with their mended twins, and clean models.

A fault is a `Case`: one model file in which lines that a finding may point at end in `# fault`, and
the swaps of text that mend it. A clean model is any row with an `id` and a `source`.

A file is checked as it stands, or with names of it that the check takes (`loss`, `data`, ...). One that
defines `train(watch)` holds a training or an evaluation, which runs in a watch of its `model`; with
`ranks = 2` that runs in so many processes of gloo, in which the file is executed after they are joined,
and the report is about all of them.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from normdoctor import doctor
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.testing import check_source

TESTS = Path(__file__).resolve().parent.parent / "tests"
HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n"
#: Statuses of a report that was confirmed: a fix was merged, a maintainer agreed, it is still in the
#: code, or it is behaviour of torch itself.
CONFIRMED = ("fix", "ack", "HEAD", "lib")
#: Stands for a model that the check reports as one whose forward does not run.
DOES_NOT_RUN = "does-not-run"


@dataclass(frozen=True)
class Case:
    """A fault and how it is mended.

    Args:
        id: The row of the list of reported faults; `DS02b` is the same fault in another style, `DS-x1`
            one of the kind that nobody reported.
        status: Of the report: fix, ack, HEAD, lib, PR, rep, thin; `own` for one that nobody reported.
        mode: What it takes to see a reported fault, by the list of reports: S the code alone, D inputs, R
            measurements, T a training; empty for the others.
        codes: Rules of which one has to fire: the one of the catalogue, or another true diagnosis.
        how: What was rebuilt, and what is handed to the check.
        text: The faulty file, less the usual imports.
        swaps: Pieces of the text, and what they become in the mended file.
        given: Names of the file that are handed to the check: `loss`, `labels`, `data`, `optimizer`,
            `reference`.
    """

    id: str
    status: str
    codes: tuple[str, ...]
    how: str
    text: str
    swaps: tuple[tuple[str, str], ...]
    given: tuple[str, ...] = ()
    mode: str = ""

    @property
    def faulty(self) -> str:
        """The faulty file."""
        return HEAD + self.text.lstrip("\n")

    @property
    def fixed(self) -> str:
        """The mended file."""
        text = re.sub(r"[ ]*# fault$", "", self.text, flags=re.MULTILINE)
        for old, new in self.swaps:
            if old not in text:
                raise ValueError(f"{self.id}: nothing to swap for {old!r}")
            text = text.replace(old, new)
        return HEAD + text.lstrip("\n")

    @property
    def lines(self) -> list[int]:
        """The lines that a finding may point at."""
        return [n for n, line in enumerate(self.faulty.splitlines(), 1) if line.endswith("# fault")]

    @property
    def kind(self) -> str:
        """`reported`, `variant` (another style of a reported one) or `own`."""
        if "-x" in self.id:
            return "own"
        return "reported" if self.id[-1].isdigit() else "variant"

    @property
    def runs(self) -> str:
        """What the check runs: `ranks`, `watch`, `data`, or nothing."""
        if _ranks(self.text):
            return "ranks"
        return "watch" if _watched(self.text) else "data" if "data" in self.given else ""


@dataclass(frozen=True)
class LeftOut:
    """A report that is not rebuilt; `mode` and `status` as in `Case`."""

    id: str
    mode: str
    status: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the check said of a file: findings with the least confidence, and why it did not run."""

    findings: tuple[Finding, ...]
    problems: tuple[str, ...] = ()

    def named(self, codes: tuple[str, ...]) -> list[Finding]:
        """The findings of these rules."""
        return [finding for finding in self.findings if finding.code in codes]

    def finds(self, codes: tuple[str, ...]) -> bool:
        """Is one of these diagnoses made?"""
        return bool(self.named(codes)) or (DOES_NOT_RUN in codes and bool(self.problems))

    @property
    def loud(self) -> list[Finding]:
        """What fails a run by default: warnings and errors of medium confidence or above."""
        return [
            finding
            for finding in self.findings
            if finding.severity.rank >= Severity.WARNING.rank
            and finding.confidence.rank >= Confidence.MEDIUM.rank
        ]


def placed(case: Case, verdict: Verdict) -> bool | None:
    """Does a right finding stand at a marked line? None where no right finding has a place."""
    places = [finding.location.line for finding in verdict.named(case.codes) if finding.location]
    return any(line in case.lines for line in places) if places else None


def judge(source: str, given: tuple[str, ...] = ()) -> Verdict:
    """Check a file that is given as text, all confidences.

    An optimizer knows tensors of one model: with `optimizer` the live model is checked, not the file.
    """
    if ranks := _ranks(source):
        return _hear_ranks(source, ranks)
    if _watched(source):
        return hear(source)
    with tempfile.TemporaryDirectory(prefix="normdoctor-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.py"
        path.write_text(source, encoding="utf-8")
        target, chosen = str(path), {}
        if given:
            values: dict[str, Any] = {"__name__": "model"}
            exec(compile(source, str(path), "exec"), values)
            chosen = {name: values[name] for name in given}
            if "optimizer" in given:
                target = values["model"]
                chosen |= {"inputs": values["inputs"], "optimizer": values["optimizer"](target)}
        report = doctor.check(target, min_confidence="low", **chosen)
    return Verdict(report.findings, tuple(problem.message for problem in report.problems))


def cases() -> list[Case]:
    """All faults, by id."""
    found = [row for row in _rows(TESTS / "faults" / "cases") if isinstance(row, Case)]
    return sorted(found, key=lambda case: case.id)


def left_out() -> list[LeftOut]:
    """The reports that are not rebuilt: lines `id mode status: reason`."""
    found = []
    for line in (TESTS / "faults" / "left_out.txt").read_text(encoding="utf-8").splitlines():
        key, _, reason = line.partition(": ")
        name, mode, status = key.split()
        found.append(LeftOut(name, mode, status, reason))
    return found


def clean() -> list[Any]:
    """All clean models, by id; none where there are no such tests."""
    file = TESTS / "clean" / "cases" / "__init__.py"
    if not file.exists():
        return []
    folders = [str(file.parent)]
    spec = importlib.util.spec_from_file_location("clean_cases", file, submodule_search_locations=folders)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["clean_cases"] = package
    spec.loader.exec_module(package)
    return sorted(package.all_cases(), key=lambda row: row.id)


def hear(source: str) -> Verdict:
    """Check a file with the `loss`, `labels`, `data` and `reference` that it names itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check_source(source, min_confidence="low")
    return Verdict(report.findings, tuple(problem.message for problem in report.problems))


def _watched(source: str) -> bool:
    return "def train(watch)" in source


def _ranks(source: str) -> int:
    stated = re.search(r"^ranks = (\d+)$", source, re.MULTILINE)
    return int(stated[1]) if stated else 0


def _hear_ranks(source: str, count: int) -> Verdict:
    """Run a watched file in processes of its own, and take what the first of them says.

    They are forked off a server that has torch loaded (its optimizers load `torch._dynamo`) and idle.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["normdoctor.doctor", "normdoctor.probing.monitor", "torch._dynamo"])
    with tempfile.TemporaryDirectory(prefix="normdoctor-") as folder:
        store = (Path(folder) / "store").as_uri()
        with ProcessPoolExecutor(count, mp_context=context) as pool:
            ranks = [pool.submit(_hear_rank, source, store, rank, count) for rank in range(count)]
            verdicts = [rank.result() for rank in ranks]
    return verdicts[0]


def _hear_rank(source: str, store: str, rank: int, count: int) -> Verdict:
    """What one of these processes does."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    wait = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=wait)
    try:
        return hear(source)
    finally:
        dist.destroy_process_group()


def _rows(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"corpus_{folder.parent.name}_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for value in vars(module).values():
            if isinstance(value, list | tuple):
                yield from (row for row in value if hasattr(row, "id"))
