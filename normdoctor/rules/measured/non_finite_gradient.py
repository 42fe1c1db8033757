"""ND807: non-finite-gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import Trained, bad_losses, bad_norm, first_bad, place_of, trained

_BEHIND = "Look at what stands behind this layer: a square root, a division or a logarithm at zero."
_LOSS = "Look at how the loss is computed: a logarithm or a division at zero, a value out of range."
_LARGE = "Clip gradients (torch.nn.utils.clip_grad_norm_), lower the learning rate, or normalize."


class NonFiniteGradient(base.Rule):
    """NaN or infinity in a gradient that the optimizer stepped with.

    ## What it does
    Looks, in a watched training, for NaN and infinity in all gradients as the optimizer gets them, and names
    the layer nearest to the output that has one: the backward met the fault right behind it. Where no
    gradient is finite, it tells since when the loss is not, and how large gradients were at the look before,
    or how far its step went.
    A step that `torch.amp.GradScaler` leaves out because of an overflow is none.

    ## Why is this bad?
    One such step makes the weights NaN, and everything after it.

    ## Example
    The standard deviation of equal values is zero, where the slope of its square root is infinite:

    ```python bad
    import torch
    from torch import nn


    class WithDeviation(nn.Module):
        def forward(self, x):
            return torch.cat([x, x.var(1, keepdim=True).sqrt()], dim=1)


    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),  # ND807
        WithDeviation(),
        nn.Linear(17, 2),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(32, 8)
        x[0] = 0.0  # padding
        loss = nn.functional.cross_entropy(model(x), torch.randint(2, (32,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn


    class WithDeviation(nn.Module):
        def forward(self, x):
            return torch.cat([x, (x.var(1, keepdim=True) + 1e-6).sqrt()], dim=1)


    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16, bias=False), WithDeviation(), nn.Linear(17, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.randn(32, 8)
        x[0] = 0.0  # padding
        loss = nn.functional.cross_entropy(model(x), torch.randint(2, (32,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
    ```

    ## When to ignore
    When the training clears such gradients itself before they do harm, after the optimizer's hooks.

    ## References
    - PyTorch documentation, Autograd mechanics: gradients for non-differentiable functions.
    """

    code = "ND807"
    name = "non-finite-gradient"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"gradients"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Above which norm of all gradients, or norm(update) / norm(weight), the look before explains it."""

        large: float = 1e6
        change: float = 1.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Find the first look with such gradients, and the layer where they begin."""
        parameters = trained(graph)
        look = first_bad(parameters)
        if look is not None:
            row = [one.figures["norms"][look] for one in parameters]
            bad = [one for one, norm in zip(parameters, row, strict=True) if bad_norm(norm)]
            yield self._finding(graph, bad, look, sum(norm is not None for norm in row))

    def _finding(self, graph: Graph, bad: list[Trained], look: int, some: int) -> Finding:
        nearest = bad[-1]
        step = nearest.figures["steps"][look]
        everywhere = len(bad) == some
        told = (
            f"the gradients of all {some} parameters are not finite"
            if everywhere
            else f"the gradient of `{nearest.name}` is not finite, as those of {len(bad) - 1} parameters "
            f"before it are, and those of {some - len(bad)} behind it are finite"
        )
        cause = self._cause(graph, step) if everywhere else ""
        grown = self._grown(graph, look)
        norm = nearest.figures["norms"][look]
        return self.finding(
            graph,
            f"{told} (step {step + 1})" + ("" if not cause else f": {cause}") + grown,
            module=nearest.module,
            location=place_of(graph, nearest),
            evidence={
                "step": step + 1,
                "parameters": len(bad),
                "of": some,
                "value": "nan" if math.isnan(norm) else "inf",
                "first": nearest.name,
            },
            help=_LARGE if grown else _LOSS if cause else _BEHIND,
        )

    def _cause(self, graph: Graph, step: int) -> str:
        """What is known of the loss, where no gradient is finite."""
        losses = bad_losses(graph)
        if losses is None:
            return "the loss itself may not be"
        first = losses.get("first")
        known = first is not None and first <= step + 1
        return f"the loss is not either, since step {first}" if known else ""

    def _grown(self, graph: Graph, look: int) -> str:
        """What the gradients, or the step, were at the look before, where that is far too much."""
        if not look:
            return ""
        norms = [one.figures["norms"][look - 1] for one in trained(graph)]
        step = next(one.figures["steps"] for one in trained(graph))[look - 1] + 1
        size = math.hypot(*(norm for norm in norms if norm is not None))
        if size > self.options.large:
            return f"; at step {step} their norm was {size:.2g}"
        updates = [one for one in trained(graph, "updates") if one.is_matrix]
        changes = [(one.figures["ratios"][look - 1] or 0.0, one.name) for one in updates]
        change, name = max(changes, default=(0.0, ""))
        if not change > self.options.change:
            return ""
        return f"; step {step} changed `{name}` by {change:.2g} of its norm"
