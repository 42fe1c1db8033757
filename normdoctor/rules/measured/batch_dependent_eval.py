"""ND705: batch-dependent-eval."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site


class BatchDependentEval(base.Rule):
    """In eval mode, what comes out for a sample depends on the other samples of its batch.

    ## What it does
    Runs the model in eval mode on a batch, exchanges half of the samples, runs it again, and compares the
    outputs for the samples that stayed. Both runs have tensors of the same shapes and the same random
    numbers, so nothing but rounding may change: reported is a change above 0.1 % of the largest output (5 %
    in half precision), at the first call whose result for those samples is another one.

    Silent where the first axis is not that of samples (the recording calls it something else, the model
    takes no other size of it, inputs differ in it, as in graphs), where the output holds a value for each
    pair of samples, and where two equal runs differ.

    ## Why is this bad?
    A prediction then depends on what happens to be in the same batch: it cannot be repeated, differs between
    batch sizes, and breaks down for a single sample. The usual causes are a BatchNorm without running
    statistics, one that `eval()` does not reach, a norm by hand over the batch axis, and a softmax over it.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32, track_running_stats=False),  # ND705
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    data = [torch.randn(8, 16) for _ in range(2)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(8, 16)
    data = [torch.randn(8, 16) for _ in range(2)]
    ```

    ## When to ignore
    When the batch is the sample: one graph, one set, all windows of one recording.

    ## References
    - Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167, section 3.1 (inference is to
      depend on the input alone)
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html (track_running_stats)
    """

    code = "ND705"
    name = "batch-dependent-eval"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"exchange"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the model; the finding stands where the dependence begins."""
        measurements = graph.facts.measurements or {}
        found = measurements.get("exchange", {}).get("model")
        if not found or found["change"] <= found["limit"]:
            return
        source = measurements.get("run", {}).get("source", "data")
        site = Site("", {"module": "", "call": 0, "kind": "", "role": "other", **found}, source)
        node = site.node(graph)
        where = graph.named(node) if node is not None else f"{site.kind or 'a call'} in {{modules}}"
        yield self.finding(
            graph,
            f"in eval mode the output for a sample changes by {found['change']:.2%} of the largest one when "
            f"{found['exchanged']} other samples of a batch of {found['batch_size']} are exchanged; "
            f"it begins at {where}",
            node=node,
            module=site.module,
            evidence={
                "change": found["change"],
                "limit": found["limit"],
                "batch_size": found["batch_size"],
                "exchanged": found["exchanged"],
                "kind": site.kind,
                "source": source,
            },
            help="Use running statistics in eval mode, and reduce over the axes of one sample only.",
        )
