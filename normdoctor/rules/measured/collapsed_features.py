"""ND606: collapsed-features."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites
from normdoctor.rules.young import behind_young


class CollapsedFeatures(base.Rule):
    """Samples that cannot be told apart any more in front of the last layer.

    ## What it does
    Takes what the last layer of a forward reads, over the batches of `data=` or of a watched training, and
    compares the rows of different samples and positions, on a bounded sample of them. It fires in two cases:

    - the rows are equal but for a part of 2000: the norm of the rows without their mean is below 5e-4 of the
      norm of the rows, while that of the model's inputs is not small (a mean cosine above 0.999999);
    - the rows lie on a line: their effective rank without their mean (the exponential of the entropy of
      singular values) is below 2, that of the inputs is at least 4, and the layer has at least 4 outputs.
      With fewer outputs a trained classifier may well end there.

    A cosine above 0.95 alone says nothing: all untrained networks with ReLUs have it in their deeper layers,
    and it is a matter of their common mean.

    ## Why is this bad?
    The head can give one answer only, or answers along one direction. In self-supervised learning this is the
    known collapse; elsewhere it comes of dead layers, of a signal that is lost among biases on its way
    through many layers, or of a bottleneck that is too narrow.

    ## Example
    Twenty layers without norms in torch's default initialization, which makes the signal smaller in each:

    ```python bad
    import torch
    from torch import nn

    layers = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(
        *layers,
        nn.Linear(64, 10),  # ND606
    )
    inputs = torch.randn(32, 64)
    data = [torch.randn(32, 64) for _ in range(2)]
    ```

    ```python good
    import torch
    from torch import nn

    blocks = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Linear(64, 10))
    inputs = torch.randn(32, 64)
    data = [torch.randn(32, 64) for _ in range(2)]
    ```

    ## When to ignore
    When the batches hold samples that are meant to be alike.

    ## References
    - Roy and Vetterli, The effective rank, EUSIPCO 2007
    - Jing, Vincent, LeCun and Tian, Understanding Dimensional Collapse in Contrastive Self-supervised
      Learning, https://arxiv.org/abs/2110.09348
    - Papyan, Han and Donoho, Prevalence of Neural Collapse, https://arxiv.org/abs/2008.08186
    - Poole et al., Exponential expressivity in deep neural networks, https://arxiv.org/abs/1606.05340
    """

    code = "ND606"
    name = "collapsed-features"
    category = "measured"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset[str]()
    needs = frozenset({"representation"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Where rows count as equal or as a line, and the least evidence."""

        spread: float = 5e-4
        input_spread: float = 0.05
        rank: float = 2.0
        input_rank: float = 4.0
        outputs: int = 4
        rows: int = 16
        features: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge what the last layer reads."""
        behind = behind_young(graph)
        for site in sites(graph, need="representation"):
            figures, wanted = site.figures, self.options
            if behind(site) or figures["rows"] < wanted.rows or figures["features"] < wanted.features:
                continue
            if figures["spread"] < wanted.spread and figures["input_spread"] > wanted.input_spread:
                alike = (
                    f"are equal but for {figures['spread']:.1g} of their size (mean cosine "
                    f"{figures['cosine']:.6f})"
                    if figures["cosine"]
                    else "are all zero"  # rows that are equal have the cosine one, if they have any
                )
                differ = f"those of the inputs differ by {figures['input_spread']:.2g}"
                yield self._finding(graph, site, f"{alike}, {differ}")
            elif (
                figures["rank"] < wanted.rank
                and figures["input_rank"] >= wanted.input_rank
                and figures["outputs"] >= wanted.outputs
            ):
                yield self._finding(
                    graph,
                    site,
                    f"lie on a line (effective rank {figures['rank']:.2g} of {figures['features']} "
                    f"features, that of the inputs is {figures['input_rank']:.3g})",
                )

    def _finding(self, graph: Graph, site: Site, what: str) -> Finding:
        figures = site.figures
        kept = ("rows", "features", "outputs", "cosine", "spread", "rank", "input_spread", "input_rank")
        return self.finding(
            graph,
            f"the {figures['rows']} rows that {{modules}} reads {what}, over {site.of_batches}",
            node=site.node(graph),
            module=site.module,
            evidence={**{name: figures[name] for name in kept}, "source": site.source},
            help="Look for the layer where they become alike: normalize, add skips, mend the initialization.",
        )
