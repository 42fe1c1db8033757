"""ND317: the result of an activation, norm or dropout that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Location
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule


class ResultUnused(Rule):
    """The result of an activation or norm is thrown away.

    ## What it does
    Finds calls of an activation, norm, softmax or dropout whose result is not used: the call is a
    statement of its own, or its result gets a name that nothing reads before the function ends or the
    name gets another value.

    ## Why is this bad?
    `self.relu(x)` returns a new tensor and leaves x as it is. Written as a statement it costs time and
    changes nothing: the layers around it are one linear layer, or the norm normalizes nothing.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 4)
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.fc1(x)
            self.relu(x)  # ND317
            return self.fc2(x)


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8 * 6 * 6, 4)

        def forward(self, x):
            out = self.conv(x)
            out_ = F.relu(out)  # ND317
            return self.fc(out.flatten(1))


    model = Net()
    inputs = torch.randn(8, 3, 8, 8)
    ```

    An in-place call needs no name, and a result may be kept, or looked at by Python alone:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 4)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.fc1(x)
            self.relu(x)
            self.kept = torch.tanh(x)
            score = torch.sigmoid(x)
            width = score.shape[1]
            return self.fc2(x) / width


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where a BatchNorm is called for the sake of its running statistics alone, or a module for the sake of
    the hooks on it. The rule reads the recorded forward and the source of the call: a value that another
    path through the forward reads is not reported.

    ## References
    - torch.nn.functional.relu(input, inplace=False): only with `inplace=True` the input changes.
    """

    code = "ND317"
    name = "result-unused"
    category = "activation"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report what nothing reads, where the source says so too."""
        done: set[tuple[str, Location | None]] = set()
        for node in graph.nodes:
            how = node.config.get("dropped")
            place = graph.label(node), node.location
            if how is None or graph.users(node) or place in done:
                continue
            done.add(place)
            why = "the call is a statement" if how == "statement" else "its name is not read"
            yield self.finding(
                graph,
                f"the result of {graph.named(node)} is not used ({why}), and its input stays as it was",
                node=node,
                evidence={"kind": node.kind},
                location=node.location,
                related=(("built here", graph.where(node)),) if graph.where(node) != node.location else (),
                fix=Fix(title="Use the result: x = f(x)", applicability=Applicability.DISPLAY),
            )
