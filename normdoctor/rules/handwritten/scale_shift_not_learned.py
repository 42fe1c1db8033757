"""ND904: a norm by hand whose scale or shift is a plain tensor."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ParameterFact
from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import by_hand
from normdoctor.rules.layers import count


class ScaleShiftNotLearned(Rule):
    """A norm by hand whose scale or shift is a plain tensor.

    ## What it does
    Finds hand-written norms that multiply or add a tensor with several values that is neither a
    parameter nor a buffer. The finding stands where the tensor is made, if that was seen, else at the
    norm.

    ## Why is this bad?
    The optimizer never sees it, so scale and shift stay at one and zero: the norm cannot undo what it
    takes from the layer before. A plain tensor is also left behind by `.to(device)`, `.half()` and
    `state_dict()`.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = torch.ones(dim)  # ND904

        def forward(self, x):
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            return x * self.weight


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
            return x * self.weight


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where the factors are constants on purpose; register those as buffers, which the rule accepts.

    ## References
    - torch.nn.parameter.Parameter: only parameters are returned by `Module.parameters()`.
    """

    code = "ND904"
    name = "scale-shift-not-learned"
    category = "handwritten"

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what scales and shifts each confirmed norm."""
        for found in by_hand(graph):
            known = {name: graph.parameters.get(name) for name in (*found.norm.scales, *found.norm.shifts)}
            plain = [one for name, one in known.items() if one and self._is_plain(one, found.norm.tracked)]
            if not plain:
                continue
            names = " and ".join(f"`{one.attribute}` ({count(one.tensor.size, 'value')})" for one in plain)
            yield self.finding(
                graph,
                f"{found.label} scales or shifts by a plain tensor, which is never trained: {names}",
                module=found.module,
                location=plain[0].origin or found.location,
                evidence={"tensors": [one.name for one in plain]},
                related=(
                    *((f"`{one.attribute}` is made here", one.origin) for one in plain[1:]),
                    ("the norm", found.location),
                ),
                fix=Fix(title="Make it an nn.Parameter", applicability=Applicability.DISPLAY),
            )

    @staticmethod
    def _is_plain(one: ParameterFact, tracked: tuple[str, ...]) -> bool:
        learned = one.kind != "attribute" or one.updated or one.name in tracked
        return not learned and one.tensor.size > 1
