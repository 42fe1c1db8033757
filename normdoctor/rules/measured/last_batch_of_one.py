"""ND707: last-batch-of-one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites


class LastBatchOfOne(base.Rule):
    """The last batch of an epoch has one sample, and a BatchNorm gets one value a channel.

    ## What it does
    Reads off the DataLoader how large the last batch is: the number of samples modulo the batch size, unless
    `drop_last` is set. Where it is 1 and a BatchNorm in train mode takes one value a channel from a sample
    (behind a linear layer, or a global pooling), this is an error. Of other data, the batches that were
    seen are judged.

    ## Why is this bad?
    One value has no variance: torch raises "Expected more than 1 value per channel when training", at the
    end of the first epoch and for some sizes of the data set only.

    ## Example
    Of 33 samples in batches of 16, one is left over:

    ```python bad
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),  # ND707
        nn.ReLU(),
    )
    inputs = torch.randn(16, 8)
    data = DataLoader(torch.randn(33, 8), batch_size=16)
    ```

    ```python good
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
    inputs = torch.randn(16, 8)
    data = DataLoader(torch.randn(33, 8), batch_size=16, drop_last=True)
    ```

    ## When to ignore
    When the loader is not that of the training.

    ## References
    - https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader (drop_last)
    - torch.nn.functional.batch_norm, "Expected more than 1 value per channel when training"
    """

    code = "ND707"
    name = "last-batch-of-one"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"batch_norm", "loader"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Name the first BatchNorm that gets one value a channel."""
        measurements = graph.facts.measurements or {}
        loader = measurements.get("loader", {}).get("data", {})
        for site in sites(graph, need="batch_norm"):
            if not site.figures["training"] or site.synthetic:
                continue
            if site.figures["single"]:
                yield self._finding(graph, site, loader, _seen(loader))
                return
            lone = loader.get("last") == 1 and not loader["drop_last"] and loader["batch_size"] > 1
            if lone and site.figures["positions"] == 1:
                yield self._finding(graph, site, loader, _counted(loader))
                return

    def _finding(self, graph: Graph, site: Site, loader: dict[str, Any], said: str) -> Finding:
        return self.finding(
            graph,
            f"{said}: {{modules}} gets one value a channel, which has no variance, and torch raises an error",
            node=site.node(graph),
            module=site.module,
            evidence={**loader, "source": site.source},
            help="Set drop_last=True on the loader of the training, or take another batch size.",
        )


def _counted(loader: dict[str, Any]) -> str:
    size, samples = loader["batch_size"], loader["samples"]
    return f"{samples} samples in batches of {size} leave a last batch of one sample (drop_last=False)"


def _seen(loader: dict[str, Any]) -> str:
    if loader.get("last") == 1 and not loader["drop_last"] and loader["batch_size"] > 1:
        return _counted(loader)
    return "a batch of the data has one sample"
