"""ND503: state that is kept in a plain attribute."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node, ParameterFact
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule

_RECURRENT = frozenset({"lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell"})


class UnregisteredState(Rule):
    """A tensor that forward reads and updates is a plain attribute, not a buffer.

    ## What it does
    Finds tensors that lie in an attribute, or in a list or dict of one, are registered neither as
    parameter nor as buffer, and that one forward both reads and overwrites.

    ## Why is this bad?
    Only buffers and parameters appear in `state_dict()` and follow `.to(device)`, `.half()` and
    DistributedDataParallel. A running mean or a codebook in a plain attribute is lost when the model is
    saved, starts anew when it is loaded, and stays on the CPU when the model moves.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Centred(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
            self.center = torch.zeros(width)

        def forward(self, x):
            x = self.fc(x)
            if self.training:
                self.center = 0.9 * self.center + 0.1 * x.mean(0).detach()  # ND503
            return x - self.center


    model = Centred(16)
    inputs = torch.randn(8, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Centred(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
            self.register_buffer("center", torch.zeros(width))

        def forward(self, x):
            x = self.fc(x)
            if self.training:
                self.center = 0.9 * self.center + 0.1 * x.mean(0).detach()
            return x - self.center


    model = Centred(16)
    inputs = torch.randn(8, 16)
    ```

    A table that is made once, or made anew for another length, is a cache and no state:

    ```python good
    import torch
    from torch import nn


    class Masked(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc = nn.Linear(width, width)
            self.mask = torch.ones(1, 1)

        def forward(self, x):
            if self.mask.shape[0] != x.shape[1]:
                self.mask = torch.ones(x.shape[1], x.shape[1]).tril()
            return self.mask @ self.fc(x)


    model = Masked(16)
    inputs = torch.randn(2, 5, 16)
    ```

    ## When to ignore
    Where the state belongs to a run and not to the model, as a cache of keys and values. The rule is
    silent for tensors with the batch's size as an axis and for those that recurrent layers take: both
    are the memory of a sequence. What holds None or a number before the first forward is not seen.

    ## Fix safety
    The function of the model stays the same. The state_dict gets the keys that were missing, so that an old
    one is loaded with `strict=False`.

    ## References
    - torch.nn.Module.register_buffer: "used to register a buffer that should not be considered a model
      parameter. For example, BatchNorm's running_mean".
    """

    code = "ND503"
    name = "unregistered-state"
    category = "state"
    severity = Severity.ERROR
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the plain tensors that forward updated, and at what reads them."""
        batches = {fact.tensor.shape[0] for fact in graph.facts.inputs if fact.tensor.shape} - {1}
        for one in graph.facts.parameters:
            if one.kind != "attribute" or one.tensor.dtype == "bool":
                continue
            readers = [node for node in graph.nodes if one.name in node.parameters]
            if not one.updated and not any(self._runs(node, one) for node in readers):
                continue
            if not readers or any(node.kind in _RECURRENT for node in readers):
                continue
            if len(one.tensor.shape) > 1 and batches & set(one.tensor.shape):
                continue
            yield self._report(graph, one, self._update(readers))

    @staticmethod
    def _runs(node: Node, one: ParameterFact) -> bool:
        """Is the tensor a running statistic of `F.batch_norm`, which writes it where nobody sees?"""
        tracking = node.config.get("track_running_stats") and node.config.get("training")
        return node.kind == "batch_norm" and bool(tracking) and one.name in node.parameters[:2]

    @staticmethod
    def _update(readers: list[Node]) -> Node:
        """The call that computes the new value: the first that reads the old one."""
        return readers[0]

    def _report(self, graph: Graph, one: ParameterFact, node: Node) -> Finding:
        shape = "x".join(str(length) for length in one.tensor.shape) or "a scalar"
        return self.finding(
            graph,
            f"`{one.attribute}` of {{modules}} ({shape}) is read and updated by forward, and is no buffer: "
            f"state_dict and .to() miss it",
            module=one.module,
            location=node.location,
            evidence={"attribute": one.attribute, "shape": list(one.tensor.shape)},
            related=(("it was made here", one.origin),),
            fix=Fix(
                title="Use register_buffer",
                applicability=Applicability.SAFE,
                steps=(Edit.register(one.attribute),),
                everywhere=True,
            ),
        )
