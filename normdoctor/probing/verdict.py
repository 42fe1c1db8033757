"""What the rules say of a watched training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from normdoctor.errors import UsageError
from normdoctor.facts import Facts
from normdoctor.probing.probe import Measurements
from normdoctor.probing.watchfacts import with_modes

if TYPE_CHECKING:
    from normdoctor.report import Report

#: Rules without measurements that are judged by how the model is trained, and those about its optimizers.
_BESIDE = frozenset({"ND506"})
_OPTIMIZED = frozenset({"ND508", "ND509"})


def chosen(
    select: Iterable[str] = (), ignore: Iterable[str] = (), *, optimizers: bool = True
) -> tuple[str, ...]:
    """The codes of the rules that a watch judges by, with `optimizers` also those about them.

    Raises:
        UsageError: None of them is selected, or a selector names no rule.
    """
    from normdoctor.selection import select_rules

    rules = select_rules(select=select, ignore=ignore, preview=True).rules
    beside = _BESIDE | _OPTIMIZED if optimizers else _BESIDE
    codes = tuple(rule.code for rule in rules if rule.needs or rule.code in beside)
    if not codes:
        raise UsageError(
            "none of the rules that a watch judges by is selected",
            hint="These are the rules that rest on measurements: ND6, ND7 and ND8.",
        )
    return codes


def completed(facts: Facts, measurements: Measurements, notes: Iterable[str]) -> Facts:
    """The facts with what was measured, and with BatchNorms in the modes in which they were trained."""
    training = {
        path: figures["training"]
        for path, figures in measurements.get("modes", {}).items()
        if figures["kind"] != "model" and figures["train_steps"] + figures["eval_steps"]
    }
    facts = with_modes(facts, training)
    return msgspec.structs.replace(facts, measurements=measurements, notes=(*facts.notes, *notes))


def judged(
    facts: Sequence[Facts], codes: Sequence[str], min_confidence: str = "medium", *, views: bool = True
) -> Report:
    """The report about watched models, by the rules of these codes; without `views`, only findings."""
    from normdoctor.config import Settings
    from normdoctor.findings import Confidence
    from normdoctor.running import Session

    settings = Settings(select=tuple(codes), min_confidence=Confidence(min_confidence))
    session = Session(settings, views=views)
    for one in facts:
        session.check(one)
    return session.report()
