"""ND110: one norm at two places, and the norm of the second place unused."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.usage import Use


class NormReused(Rule):
    """One norm is called at two places, and the norm beside it never.

    ## What it does
    Finds a norm that runs twice or more in each call of its module while another norm of that module, of
    the same class and shape, is never used: `ln1` was typed where `ln2` was meant.

    ## Why is this bad?
    Both places share one scale and one shift, though they normalize different tensors, and the
    parameters of the other norm learn nothing. Weights that were trained with the right code load
    without an error and give other results.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Layer(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.ln1 = nn.LayerNorm(d)  # ND110
            self.ln2 = nn.LayerNorm(d)
            self.mix = nn.Linear(d, d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            x = x + self.mix(self.ln1(x))
            return x + self.mlp(self.ln1(x))


    model = Layer(16)
    inputs = torch.randn(2, 6, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Layer(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.ln1 = nn.LayerNorm(d)
            self.ln2 = nn.LayerNorm(d)
            self.mix = nn.Linear(d, d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            x = x + self.mix(self.ln1(x))
            return x + self.mlp(self.ln2(x))


    model = Layer(16)
    inputs = torch.randn(2, 6, 16)
    ```

    One norm for two tensors is a choice where no other norm is left over:

    ```python good
    import torch
    from torch import nn


    class Compare(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm = nn.LayerNorm(d)
            self.left = nn.Linear(d, d)
            self.right = nn.Linear(d, d)

        def forward(self, x):
            return self.left(self.norm(x)) * self.right(self.norm(-x))


    model = Compare(16)
    inputs = torch.randn(2, 16)
    ```

    ## When to ignore
    Where the unused norm belongs to a path that this call does not take. The rule is silent, as ND109,
    where another layer of the module did not run either.

    ## References
    - ml-explore/mlx issue 1636: a decoder layer that calls `ln1` twice and `ln2` never.
    """

    code = "ND110"
    name = "norm-reused"
    category = "placement"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look for a norm that runs in the place of a forgotten one."""
        use = Use(graph)
        pairs: dict[str, tuple[ModuleFact, list[ModuleFact]]] = {}
        for module in use.forgotten():
            if (other := use.stand_in(module)) is not None:
                pairs.setdefault(other.path, (other, []))[1].append(module)
        for used, unused in pairs.values():
            names = " and ".join(f"`{one.path.rpartition('.')[2]}`" for one in unused)
            yield self.finding(
                graph,
                f"{{modules}} ({used.type}) is called {used.calls} times, and {names} beside it never",
                module=used.path,
                evidence={"calls": used.calls, "unused": [one.path for one in unused]},
                related=tuple(("built and never called", one.origin) for one in unused),
                help="Call the other norm at the second place.",
            )
