"""ND706: statistics-updated-twice."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import live_evaluations, modes, norm_modes, origin_of, spread_over


class StatisticsUpdatedTwice(base.Rule):
    """A BatchNorm that takes the same batch into its running statistics twice.

    ## What it does
    Says, in a watched training, in which BatchNorms the running statistics move a second time for a batch
    that they have already seen, in most steps: because activation checkpointing computes the layer again
    in the backward, or because the whole model is run twice on the same batch.

    Gradient accumulation, a layer that is called on different tensors, statistics that do not move
    (momentum 0) and evaluations in train mode (ND710) are something else.

    ## Why is this bad?
    The running statistics follow the last batches twice as fast as the momentum says: with 0.1 the last
    batch weighs 19 %. They are noisier than they need to be, and evaluation with them.

    ## Example
    ```python bad
    import torch
    from torch import nn
    from torch.utils.checkpoint import checkpoint


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(
                nn.Linear(8, 16, bias=False),
                nn.BatchNorm1d(16),  # ND706
                nn.ReLU(),
            )
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=False))


    model = Net()


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn
    from torch.utils.checkpoint import checkpoint


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU())
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=False))


    model = Net()


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When the momentum was chosen for it: 1 - sqrt(1 - m) in place of m.

    ## References
    - PyTorch documentation, torch.utils.checkpoint: the forward is run again in the backward.
    - m2lines/Samudra issue 572: checkpointing and a second pass with batches of 4.
    """

    code = "ND706"
    name = "statistics-updated-twice"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"modes"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The share of steps in which it happens, and the least evidence."""

        share: float = 0.5
        steps: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge recomputation layer by layer, and repeated passes of the model."""
        run = modes(graph)
        if run is None:
            return
        for figures in norm_modes(graph):
            if figures["moves"] and self._often(figures["recomputed"], figures["train_steps"]):
                yield self.finding(
                    graph,
                    f"the running statistics of {{modules}} move twice for each batch: it ran again in the "
                    f"backward in {figures['recomputed']} of {figures['train_steps']} steps (checkpointing)",
                    module=figures["module"],
                    location=origin_of(graph, figures["module"]),
                    evidence={"recomputed": figures["recomputed"], "steps": figures["train_steps"]},
                    help="Leave the BatchNorm out of the checkpointed part, or use GroupNorm or LayerNorm.",
                )
        again, of = run["repeated"], run["steps"]
        if not self._often(again, of):
            again, of = run["copies"], run["compared"]
        moving = [one for one in norm_modes(graph) if one["moves"] and one["train_steps"]]
        if moving and self._often(again, of) and not live_evaluations(graph):
            first = moving[0]["module"]
            finding = self.finding(
                graph,
                f"the running statistics of {{modules}} move twice for each batch: the model ran on the same "
                f"batch again in {again} of {of} steps",
                module=first,
                location=origin_of(graph, first),
                evidence={"repeated": again, "steps": of},
                help="Run the extra pass in eval mode, or with the outputs of the first.",
            )
            yield spread_over(finding, [one["module"] for one in moving])

    def _often(self, count: int, steps: int) -> bool:
        return bool(count >= self.options.steps and count >= self.options.share * steps)
