"""ND303: a deep chain of layers with a saturating activation."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.hidden import hidden_chains


class SaturatingStack(Rule):
    """Many hidden layers in a row have sigmoid or tanh as their activation.

    ## What it does
    Counts hidden layers in a chain, from linear layer to linear layer, whose activation is the sigmoid:
    three with no norm between them, five with norms. For tanh eight without norms are too many.

    ## Why is this bad?
    The derivative of the sigmoid is 0.25 at most. Behind n of them the gradient has been multiplied by
    0.25^n or less, beside the weights: 0.016 for three layers, 0.001 for five. The first layers hardly learn.
    The output of a sigmoid is also never negative and has a mean of 0.5, which pushes the next one
    towards saturation. tanh has a derivative of 1 at 0 only, and loses more slowly.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.Sigmoid(),  # ND303
        nn.Linear(32, 32),
        nn.Sigmoid(),
        nn.Linear(32, 32),
        nn.Sigmoid(),
        nn.Linear(32, 1),
    )
    inputs = torch.randn(8, 16)
    ```

    Gates multiply, and a residual sum lets the gradient pass:

    ```python good
    import torch
    from torch import nn


    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.gate = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            return x + torch.tanh(self.inner(x)) * torch.sigmoid(self.gate(x))


    head = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    model = nn.Sequential(Gated(), Gated(), Gated(), head)
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where the network is small, its weights are drawn for this activation (Xavier), and it is known to train;
    where smooth functions are wanted, as for solutions of differential equations.

    ## References
    - Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks":
      with sigmoids the last hidden layer saturates at once, and four layers hardly leave that state.
    - The bound: sigmoid'(x) = s(x)(1 - s(x)) <= 1/4.
    """

    code = "ND303"
    name = "saturating-stack"
    category = "activation"

    class Options(RuleOptions, frozen=True):
        """How many hidden layers in a chain are too many."""

        sigmoid_layers: int = 3
        sigmoid_layers_with_norms: int = 5
        tanh_layers: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each chain that is too long, once, at its first activation."""
        done: set[str] = set()
        for kinds, most, most_normed in (
            (frozenset({"sigmoid"}), self.options.sigmoid_layers, self.options.sigmoid_layers_with_norms),
            (frozenset({"sigmoid", "tanh"}), self.options.tanh_layers, None),
        ):
            for chain, norms in hidden_chains(graph, kinds):
                limit = most_normed if norms else most
                key = graph.label(chain[0])
                if limit is not None and len(chain) >= limit and key not in done:
                    done.add(key)
                    yield self._report(graph, chain, norms)

    def _report(self, graph: Graph, chain: tuple[Node, ...], norms: int) -> Finding:
        sigmoids = sum(node.kind == "sigmoid" for node in chain)
        kinds = " and ".join(sorted({node.kind for node in chain}))
        bound = 0.25**sigmoids
        effect = f": they multiply the gradient by {bound:.2g} at most" if sigmoids else ""
        between = f"{norms} norms" if norms else "no norm"
        return self.finding(
            graph,
            f"{graph.named(chain[0])} is the first of {len(chain)} hidden layers in a row with {kinds} "
            f"and {between} between them{effect}",
            node=chain[0],
            evidence={"layers": len(chain), "norms": norms, "bound": bound if sigmoids else None},
            related=tuple(("the next one", graph.where(node)) for node in chain[1:4]),
            fix=Fix(title="ReLU or GELU in the hidden layers", applicability=Applicability.DISPLAY),
        )
