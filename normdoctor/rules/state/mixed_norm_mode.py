"""ND507: BatchNorms of one block in different modes."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import BATCH_NORMS, count


class MixedNormMode(Rule):
    """In one block some BatchNorms train and others are in eval mode.

    ## What it does
    Finds modules that hold BatchNorms in both modes, where the ones in eval mode are not the first that
    run.

    ## Why is this bad?
    One half of the block normalizes with the batch, the other with running statistics that no longer
    follow it, so the two drift apart. Usually a freeze was incomplete, or one `train()` too many undid
    it.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND507
    )
    model[4].eval()
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
    )
    model[1].eval()
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ## When to ignore
    Freezing the first layers, or whole stages, is common and right: the rule is silent there, and speaks
    of blocks only.

    ## References
    - torch.nn.Module.train: it sets the mode of every module below, also of those that were frozen.
    """

    code = "ND507"
    name = "mixed-norm-mode"
    category = "state"
    severity = Severity.INFO
    confidence = Confidence.MEDIUM
    requires = frozenset()

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare the BatchNorms that one module holds directly."""
        blocks: dict[str, list[ModuleFact]] = {}
        for module in graph.facts.modules:
            tracks = module.config.get("track_running_stats", True)
            if module.base in BATCH_NORMS and tracks and (module.calls or not graph.nodes):
                blocks.setdefault(module.path.rpartition(".")[0], []).append(module)
        for path, norms in blocks.items():
            modes = [module.training for module in self._in_order(graph, norms)]
            if len(set(modes)) < 2 or modes == sorted(modes) or not self._same_tree(graph, path, norms):
                continue
            still = [module for module in norms if not module.training]
            for module in still:
                yield self.finding(
                    graph,
                    f"{{modules}} is in eval mode, while {count(len(norms) - len(still), 'BatchNorm')} "
                    "beside it train",
                    module=module.path,
                    evidence={"training": len(norms) - len(still), "eval": len(still)},
                )

    @staticmethod
    def _in_order(graph: Graph, norms: list[ModuleFact]) -> list[ModuleFact]:
        """In the order in which they run."""
        first: dict[str, int] = {}
        for node in graph.nodes:
            first.setdefault(node.module if node.module is not None else node.scope, node.index)
        return sorted(norms, key=lambda module: first.get(module.path, -1))

    @staticmethod
    def _same_tree(graph: Graph, path: str, norms: list[ModuleFact]) -> bool:
        """Is the block itself meant to train (a module list of frozen and other norms is none)?"""
        holder = graph.modules.get(path)
        return holder is not None and holder.type not in ("ModuleList", "ModuleDict") and holder.training
