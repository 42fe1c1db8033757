"""The running statistics of norms, as rules ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.facts import ModuleFact, WeightFact
from normdoctor.graph import Graph
from normdoctor.rules.layers import BATCH_NORMS, INSTANCE_NORMS, number


class RunningNorm(NamedTuple):
    """A BatchNorm or InstanceNorm with running statistics; `mean` and `variance` may be non-finite."""

    module: ModuleFact
    mean: WeightFact
    variance: WeightFact
    eps: float | None

    @property
    def untrained(self) -> bool:
        """Are mean and variance exactly what the layer starts with: 0 and 1?"""
        return (
            self.mean.constant
            and self.mean.minimum == 0
            and self.variance.constant
            and self.variance.minimum == 1
        )


def running_norms(graph: Graph) -> Iterator[RunningNorm]:
    """Every norm with running statistics whose values are known, in the order of the model."""
    weights = graph.facts.weights or {}
    for module in graph.facts.modules:
        if module.base not in BATCH_NORMS | INSTANCE_NORMS:
            continue
        prefix = f"{module.path}." if module.path else ""
        mean, variance = weights.get(f"{prefix}running_mean"), weights.get(f"{prefix}running_var")
        if mean is not None and variance is not None:
            yield RunningNorm(module, mean, variance, number(module.config.get("eps")))
