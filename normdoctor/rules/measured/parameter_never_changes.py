"""ND805: parameter-never-changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import Trained, origin_of, place_of, spread_over, trained

#: Adam changes a weight of 1 by about its learning rate: below half a unit in the last place of float32.
_TINY = 2.0**-24


class ParameterNeverChanges(base.Rule):
    """A parameter that has gradients and an optimizer, and stays as it is.

    ## What it does
    Compares, in a watched training, up to 1024 entries of each parameter before and after the optimizer's
    step. Says so where they had a gradient in five looks or more and not one of them ever changed.

    Parameters whose gradient is rounding noise are left out (an RMS below 1e-4 of the largest): a bias in
    front of a BatchNorm has no gradient but that, and weights behind a LayerScale of 1e-6 next to none.

    ## Why is this bad?
    The parameter is not trained. Usual causes: a learning rate of zero for its group, weights in bf16 or
    fp16, for which the step is below half a unit in the last place (1 + 1e-4 is 1 in bf16), weights that are
    overwritten after each step, and an optimizer that was built for other tensors. Where nothing changes and
    no optimizer made a step, `optimizer.step()` is missing; that is one finding.

    ## Example
    Half precision rounds small steps away:

    ```python bad
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.LayerNorm(16),  # ND805
        nn.ReLU(),
        nn.Linear(16, 2),
    ).bfloat16()
    nn.init.ones_(model[1].bias)


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(8):
            x = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(x.bfloat16()).float(), torch.randint(2, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(8):
            x = torch.randn(32, 8)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x), torch.randint(2, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When a schedule keeps a group at a learning rate of zero for a while.

    ## References
    - Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740 (master weights in fp32)
    """

    code = "ND805"
    name = "parameter-never-changes"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"gradients", "updates"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least evidence, and the share of the largest gradient below which it is noise."""

        looks: int = 5
        noise: float = 1e-4

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every parameter that an optimizer steps with."""
        sizes = {one.name: self._size(one) for one in trained(graph)}
        largest = max(sizes.values(), default=0.0)
        still = [
            one
            for one in trained(graph, "updates")
            if one.figures["moved"] >= self.options.looks
            and one.figures["still"] == one.figures["moved"]
            and one.figures["trainable"]
            and sizes.get(one.name, 0.0) > self.options.noise * largest
        ]
        if still and not _optimized(graph) and all(_unmoved(one) for one in trained(graph, "updates")):
            yield self._no_step(graph, still)
            return
        by_layer: dict[str, list[Trained]] = {}
        for one in still:
            by_layer.setdefault(one.module, []).append(one)
        for path, members in by_layer.items():
            yield self._finding(graph, path, members)

    def _no_step(self, graph: Graph, still: list[Trained]) -> Finding:
        looks, count = still[0].figures["moved"], len(still)
        return self.finding(
            graph,
            f"nothing changed in {looks} looks although {count} parameters had a gradient, and no optimizer "
            "made a step with the model",
            module="",
            location=origin_of(graph, ""),
            evidence={"looks": looks, "parameters": [one.name for one in still]},
            help="Call optimizer.step() after the backward, on an optimizer of this model's own parameters.",
        )

    def _size(self, one: Trained) -> float:
        sizes = [value for value in one.rms() if value is not None and math.isfinite(value)]
        return median(sizes) if sizes else 0.0

    def _finding(self, graph: Graph, path: str, members: list[Trained]) -> Finding:
        first = members[0]
        names = " and ".join(f"`{one.name}`" for one in members)
        known = graph.parameters.get(first.name)
        dtype, rate = known.tensor.dtype if known else "", first.figures["rate"]
        # Without an optimizer that was seen, nobody knows whether there were steps to be rounded.
        narrow = dtype in ("bfloat16", "float16") and rate is not None
        because = (
            "its learning rate is 0"
            if rate == 0
            else f"{dtype} rounds the steps away"
            if narrow
            else f"its learning rate is {rate:g}"
            if rate is not None and rate < _TINY
            else ""
        )
        finding = self.finding(
            graph,
            f"{names} never changed in {first.figures['moved']} looks although there was a gradient"
            + (f": {because}" if because else ""),
            module=path,
            location=place_of(graph, first),
            evidence={
                "looks": first.figures["moved"],
                "rate": rate,
                "dtype": dtype,
                "parameters": [one.name for one in members],
            },
            help="Keep parameters in float32 and use autocast."
            if narrow
            else "Check the learning rate of its group, and what writes to it after the step.",
        )
        return spread_over(finding, [path])


def _optimized(graph: Graph) -> bool:
    """Did an optimizer make a step with the model?"""
    return any(one.figures["optimized"] is not None for one in trained(graph))


def _unmoved(one: Trained) -> bool:
    return bool(one.figures["still"] == one.figures["moved"])
