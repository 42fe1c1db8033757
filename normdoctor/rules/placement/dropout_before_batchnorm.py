"""ND102: dropout whose output a BatchNorm takes the statistics of."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import walk_back_from
from normdoctor.rules.layers import in_training, number, owner, running

#: Dropouts that scale the variance. Alpha dropout keeps mean and variance by construction.
DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d"})


class DropoutBeforeBatchnorm(Rule):
    """Dropout in front of a BatchNorm shifts its statistics between training and evaluation.

    ## What it does
    Finds active dropout (p > 0) whose output reaches a BatchNorm with running statistics through
    nothing but elementwise operations and activations.

    ## Why is this bad?
    In training, dropout sets a share p of the values to zero and divides the rest by 1 - p. The mean
    stays, the variance grows to at least 1/(1 - p) times: twofold for p = 0.5. BatchNorm learns that
    variance as its running variance. In evaluation dropout is off, the variance is what it was
    without it, and BatchNorm divides by a standard deviation that is sqrt(1/(1 - p)) too large: all
    later layers see activations that they were not trained on.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.Dropout(0.5),  # ND102
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    ```

    A layer with weights between the two averages over many dropped values. The shift is smaller there,
    and the rule is silent, as in wide residual networks:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where dropout stays on in evaluation by design (Monte Carlo dropout): then both modes agree. The
    rule is silent for p = 0, for alpha dropout (which keeps mean and variance), behind a sum or a
    concatenation with other tensors, and where the BatchNorm is frozen or keeps no running statistics.

    ## References
    - Li, Chen, Hu and Yang, 2019, "Understanding the Disharmony between Dropout and Batch Normalization
      by Variance Shift". The ratio 1/(1 - p) holds for centred values and is a lower
      bound for all others: (E[x^2]/(1-p) - m^2) / (E[x^2] - m^2) >= 1/(1-p).
    """

    code = "ND102"
    name = "dropout-before-batchnorm"
    category = "placement"
    severity = Severity.WARNING

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from each BatchNorm to a dropout."""
        done: set[tuple[str, str]] = set()
        for norm in graph.norms:
            if norm.kind != "batch_norm" or not running(graph, norm):
                continue
            found, passed = walk_back_from(graph, norm, lambda node: self._elementwise(graph, node))
            if found is None or not self._active(graph, found):
                continue
            key = (graph.label(found), graph.label(norm.output))
            if key not in done:
                done.add(key)
                yield self._report(graph, found, norm.output, passed)

    @classmethod
    def _elementwise(cls, graph: Graph, node: Node) -> bool:
        if graph.transparent(node) or (node.role == "activation" and node.kind != "glu"):
            return True
        if node.role == "dropout":
            return not cls._active(graph, node)
        return node.kind in ("add", "sub", "mul", "div") and len(node.inputs) == 1 and not node.parameters

    @staticmethod
    def _active(graph: Graph, node: Node) -> bool:
        if node.kind not in DROPOUTS or not 0 < (number(node.config.get("p")) or 0) < 1:
            return False
        return in_training(graph, node) or not graph.facts.training

    def _report(self, graph: Graph, dropout: Node, norm: Node, passed: tuple[Node, ...]) -> Finding:
        rate = float(dropout.config["p"])
        ratio = 1 / (1 - rate)
        direct = all(graph.transparent(node) for node in passed)
        size = f"at least {ratio:.3g} times" if direct else "larger than"
        target = owner(graph, norm)
        what = target.type if target is not None else "batch norm"
        return self.finding(
            graph,
            f"{{modules}} drops {rate:.0%} in front of a {what}: the variance that it learns in training is "
            f"{size} the variance in evaluation",
            node=dropout,
            evidence={"p": rate, "variance_ratio": round(ratio, 4), "norm": graph.label(norm)},
            related=((f"{what} takes the statistics of the dropped values", graph.where(norm)),),
            fix=Fix(
                title="Move the dropout behind the norm and the activation",
                applicability=Applicability.DISPLAY,
            ),
        )
