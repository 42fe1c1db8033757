"""Which collectors a set of needs asks for: the fewest observations that answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from normdoctor.probing.attention import AttentionCollector
from normdoctor.probing.exchange import Exchange
from normdoctor.probing.finite import FiniteCollector
from normdoctor.probing.hooks import Collector
from normdoctor.probing.loader import LastBatch
from normdoctor.probing.modes import TrainEvalGap
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.padding import Padding
from normdoctor.probing.representation import RepresentationCollector
from normdoctor.probing.study import Study
from normdoctor.probing.units import UnitCollector

#: Need to what makes its collector, from the budget of values a site and forward (None: all of them).
COLLECTORS: dict[str, Callable[[int | None], Collector]] = {
    UnitCollector.need: UnitCollector,
    NormCollector.need: NormCollector,
    FiniteCollector.need: FiniteCollector,
    AttentionCollector.need: AttentionCollector,
    RepresentationCollector.need: RepresentationCollector,
}


#: What is judged by them is known only beside the statistics of norms: none of it behind young ones.
_SIGNALS = frozenset({UnitCollector.need, AttentionCollector.need, RepresentationCollector.need})


def planned(needs: Iterable[str] | None = None, budget: int | None = None) -> list[Collector]:
    """A collector for each need that hooks on forwards can answer; all of them when `needs` is None."""
    wanted = set(COLLECTORS) if needs is None else set(needs)
    if wanted & _SIGNALS:
        wanted.add(NormCollector.need)
    return [make(budget) for need, make in COLLECTORS.items() if need in wanted]


#: Need to what runs the model by itself to answer it, after the collectors.
STUDIES: dict[str, Callable[[], Study]] = {
    LastBatch.need: LastBatch,
    Exchange.need: Exchange,
    TrainEvalGap.need: TrainEvalGap,
    Padding.need: Padding,
}


def studies(needs: Iterable[str] | None = None) -> list[Study]:
    """A study for each need that asks for one; all of them when `needs` is None."""
    wanted = set(STUDIES) if needs is None else set(needs)
    return [make() for need, make in STUDIES.items() if need in wanted]
