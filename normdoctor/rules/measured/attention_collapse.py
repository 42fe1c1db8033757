"""ND612: attention-collapse."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites
from normdoctor.rules.young import behind_young


class AttentionCollapse(base.Rule):
    """Attention that puts nearly all weight on a single position.

    ## What it does
    Measures the entropy of attention weights over the batches of `data=` or of a watched training: of
    `F.scaled_dot_product_attention`, `nn.MultiheadAttention`, and of every softmax whose result is multiplied
    with values. The mean over all queries and heads of a layer is compared with ln T, where T is the number
    of keys that the mask leaves to a query; below a tenth of it, the layer is named.

    ## Why is this bad?
    The gradient of a softmax vanishes where one weight is 1: such a layer has stopped to learn where to look,
    and training gets unstable. Usual causes are scores that are not divided by the square root of the head's
    width, queries and keys whose norms have grown, and a learning rate that is too high.

    ## Example
    Scores that are multiplied where they should be divided:

    ```python bad
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, d=64):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(-2, -1) * 64
            return torch.softmax(scores, -1) @ self.v(x)  # ND612

    model = Attention()
    inputs = torch.randn(4, 32, 64)
    data = [torch.randn(4, 32, 64) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, d=64):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(-2, -1) / 64**0.5
            return torch.softmax(scores, -1) @ self.v(x)

    model = Attention()
    inputs = torch.randn(4, 32, 64)
    data = [torch.randn(4, 32, 64) for _ in range(4)]
    ```

    ## When to ignore
    When the layer is meant to select: hard attention, retrieval of one entry, pointers. Language models that
    were trained to the end rest most of their weight on the first token in some layers.

    ## References
    - Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse,
      https://arxiv.org/abs/2303.06296
    - Vaswani et al., Attention Is All You Need, section 3.2.1, https://arxiv.org/abs/1706.03762
    """

    code = "ND612"
    name = "attention-collapse"
    category = "measured"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset[str]()
    needs = frozenset({"attention"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The share of the greatest entropy, and the fewest queries that say something."""

        share: float = 0.1
        rows: int = 32

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every attention that was observed often enough."""
        behind = behind_young(graph)
        for site in sites(graph, need="attention"):
            if behind(site):
                continue
            if site.figures["rows"] >= self.options.rows and site.figures["ratio"] < self.options.share:
                yield self._finding(graph, site)

    def _finding(self, graph: Graph, site: Site) -> Finding:
        figures = site.figures
        return self.finding(
            graph,
            f"the attention of {{modules}} has collapsed onto single positions: mean entropy "
            f"{figures['entropy']:.2g} of at most {figures['most']:.3g} nats ({figures['ratio']:.1%}), "
            f"{figures['keys']} keys, {figures['rows']} queries of {site.of_batches}",
            node=site.node(graph),
            module=site.module,
            evidence={
                "entropy": figures["entropy"],
                "most": figures["most"],
                "share": figures["ratio"],
                "keys": figures["keys"],
                "queries": figures["rows"],
                "batches": site.batches,
                "source": site.source,
            },
            help="Divide the scores by the square root of the head's width, or normalize queries and keys.",
        )
