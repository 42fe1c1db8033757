"""Run mutants: does the fault run at all, is it found, and does the finding stand at its line?"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .operators import OPERATORS
from .source import Mutant, Source, all_sources


@dataclass
class Outcome:
    """What became of one mutant; `void` says why it does not count."""

    mutant: Mutant
    void: str = ""
    caught: bool = False
    placed: bool = False
    said: list[tuple[str, int | None]] = field(default_factory=list)


@dataclass
class Tally:
    """The figures of one operator."""

    places: int = 0
    caught: int = 0
    placed: int = 0
    void: Counter = field(default_factory=Counter)


def all_mutants(operator: str | None = None, net: str | None = None) -> list[Mutant]:
    return [
        mutant
        for name, operate in OPERATORS.items()
        if operator in (None, name)
        for source in all_sources()
        if net in (None, source.net)
        for mutant in operate(source)
    ]


def evaluate(mutant: Mutant) -> Outcome:
    """Run a mutant, then examine it."""
    import torch

    from normdoctor import doctor

    if mutant.void:
        return Outcome(mutant, void=mutant.void)
    values = {"__name__": "net"}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="normdoctor-mutant-") as folder:
        path = Path(folder) / "model.py"
        path.write_text(mutant.text, encoding="utf-8")
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(mutant.text, str(path), "exec"), values)
                values["model"](values["inputs"])
        except Exception as error:
            return Outcome(mutant, void=f"does not run ({type(error).__name__})")
        given = {name: values[name] for name in ("loss", "labels") if name in values}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = doctor.check(str(path), min_confidence="low", **given)
    found = [(one.code, one.location.line if one.location else None) for one in report.findings]
    right = [line for code, line in found if code in mutant.codes]
    return Outcome(mutant, "", bool(right), bool(mutant.lines & set(right)), found)


def loud(source: Source) -> list[str]:
    """What is said of a net without a fault at warning and above, and what kept it from being examined."""
    from normdoctor.findings import Severity
    from normdoctor.testing import check_source

    values = source.run()
    given = {name: values[name] for name in ("loss", "labels") if name in values}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check_source(source.text, **given)
    found = [one for one in report.findings if one.severity is not Severity.INFO]
    return [f"{one.code} {one.severity} {one.location}" for one in found] + [str(p) for p in report.problems]


def tally(outcomes: list[Outcome]) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for outcome in outcomes:
        row = found.setdefault(outcome.mutant.operator, Tally())
        if outcome.void:
            row.void[outcome.void] += 1
            continue
        row.places += 1
        row.caught += outcome.caught
        row.placed += outcome.placed
    return found
