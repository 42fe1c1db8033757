"""ND318: dropout that does not follow the model's mode."""

from __future__ import annotations

import re
from collections.abc import Iterator

from normdoctor.facts import Location, Node
from normdoctor.findings import Applicability, Confidence, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number, parents

#: Names of modules that drop on purpose, in evaluation too.
_ON_PURPOSE = re.compile(r"(?<![a-z])mc|monte_?carlo|bayes|pre_?net|concrete_?dropout", re.IGNORECASE)


class DropoutAlwaysOn(Rule):
    """Dropout is active in eval mode.

    ## What it does
    Finds `F.dropout(x)` without `training=`, a dropout layer that `forward` builds, and
    `scaled_dot_product_attention` with a fixed `dropout_p`, which drop whatever mode the model is in.
    The forward is recorded in eval mode as well to see it. A literal `training=True`, and a module whose
    name says so (Monte Carlo dropout, the pre-net of Tacotron), are taken as meant: an information.

    ## Why is this bad?
    `F.dropout` has `training=True` as its default and does not know the mode of the model; a layer that is
    built in `forward` starts in train mode each time. In evaluation the predictions are then random, and
    worse than they need be: with p = 0.5 half of the features are missing.

    ## Example
    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            x = F.dropout(F.relu(self.fc1(x)), 0.5)  # ND318
            x = nn.Dropout(0.2)(x)  # ND318
            return self.fc2(x)


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 4)
            self.drop = nn.Dropout(0.2)

        def forward(self, x):
            x = F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training)
            if self.training:
                x = F.dropout(x, 0.1)
            return self.fc2(self.drop(x))


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where the model is sampled on purpose: Monte Carlo dropout. Write `training=True` then, and the rule
    gives an information only.

    ## Fix safety
    The outputs in train mode stay the same, those in eval mode become those without this dropout; that is
    verified. No fix is offered where the dropout seems to be meant.

    ## References
    - torch.nn.functional.dropout(input, p=0.5, training=True, inplace=False).
    - rixwew/pytorch-fm issue 21: `training=self.training` was missing.
    - Gal and Ghahramani, 2016, "Dropout as a Bayesian Approximation": dropout in evaluation on purpose.
    """

    code = "ND318"
    name = "dropout-always-on"
    category = "activation"
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each call that was seen to drop in eval mode."""
        done: set[tuple[str, Location | None]] = set()
        for node in graph.nodes:
            if node.role not in ("dropout", "attention") or not node.config.get("active_in_eval"):
                continue
            place = graph.label(node), node.location
            if place not in done:
                done.add(place)
                yield self._report(graph, node)

    def _report(self, graph: Graph, node: Node) -> Finding:
        stated = node.config.get("training_stated")
        meant = self._on_purpose(graph, node) or (stated == "true" and node.role == "dropout")
        rate = number(node.config.get("dropout_p", node.config.get("p", 0.5)))
        remedy, steps = "training=self.training", (Edit.argument("training", "self.training"),)
        if node.role == "attention":
            why, remedy = "its dropout_p does not depend on the mode", "0.0 unless self.training"
            steps = (Edit.argument("dropout_p", "{} if self.training else 0.0"),)
        elif node.module is not None:
            why, remedy = "forward builds it anew each time", "Call the function with training=self.training"
            steps = (Edit.functional(),)
        elif stated == "absent":
            why = "`training` is not given, and is True by default"
        else:
            why = "`training` is True whatever the model's mode is"
        return self.finding(
            graph,
            f"{graph.named(node)} (p={rate:g}) drops in eval mode too: {why}",
            node=node,
            location=node.location,
            severity=Severity.INFO if meant else Severity.WARNING,
            confidence=Confidence.MEDIUM if meant else Confidence.HIGH,
            evidence={"p": rate, "stated": stated},
            fix=Fix(title=remedy, alters=True)
            if meant
            else Fix(title=remedy, applicability=Applicability.SAFE, steps=steps, alters=True),
        )

    @staticmethod
    def _on_purpose(graph: Graph, node: Node) -> bool:
        around = [graph.modules[node.scope]] if node.scope in graph.modules else []
        around += parents(graph, node.scope)
        return any(_ON_PURPOSE.search(f"{one.type} {one.path.rpartition('.')[2]}") for one in around)
