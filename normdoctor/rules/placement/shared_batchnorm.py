"""ND105: one BatchNorm for several tensors."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Location, Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import walk_back
from normdoctor.rules.layers import WEIGHTED, owner, parents, running


class SharedBatchnorm(Rule):
    """One BatchNorm is called on different tensors of one forward.

    ## What it does
    Finds a BatchNorm with running statistics that is called more than once in one forward, each time on
    another tensor. It is a warning where the tensors come from different layers, and an information
    where a whole branch is called again (siamese networks, a head that is shared by several scales).

    ## Why is this bad?
    In training each call uses the statistics of its own tensor. In evaluation all calls use the same
    running statistics, which are a moving average over all of them and fit none: with means 0 and 4 and
    unit variances, the running mean tends to about 2, and in evaluation both tensors come out shifted by
    2 standard deviations. Training looks healthy and evaluation is poor.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, bias=False)
            self.conv2 = nn.Conv2d(16, 16, 3, bias=False)
            self.bn = nn.BatchNorm2d(16)  # ND105
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(self.bn(self.conv1(x)))
            return self.relu(self.bn(self.conv2(x)))


    model = Net()
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, bias=False)
            self.conv2 = nn.Conv2d(16, 16, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.bn2 = nn.BatchNorm2d(16)
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(x)))


    model = Net()
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where the tensors are known to have the same distribution, as the two views of a siamese network that
    are drawn alike (there this is an information only). The rule is silent for a BatchNorm that is frozen
    or keeps no running statistics.

    ## References
    - Cooijmans, Ballas, Laurent, Gulcehre and Courville, 2017, "Recurrent Batch Normalization":
      statistics that are shared over time steps do not fit the first steps.
    - The reference code of EfficientDet (Tan, Pang and Le, 2020) shares the convolutions of its heads over
      all scales and keeps a BatchNorm for each scale.
    """

    code = "ND105"
    name = "shared-batchnorm"
    category = "placement"
    severity = Severity.WARNING

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare the tensors and the layers in front of all calls of one BatchNorm."""
        calls: dict[str, list[Norm]] = {}
        for norm in graph.norms:
            path = self._path(graph, norm)
            if norm.kind != "batch_norm" or path is None or norm.input is None:
                continue
            if running(graph, norm):
                calls.setdefault(path, []).append(norm)
        for path, norms in calls.items():
            if len({norm.input.index for norm in norms if norm.input is not None}) > 1:
                yield self._report(graph, path, norms)

    @staticmethod
    def _path(graph: Graph, norm: Norm) -> str | None:
        """The path of the layer that holds the statistics."""
        if norm.handwritten is not None:
            return norm.handwritten.module
        module = owner(graph, norm.output)
        return module.path if module is not None else None

    def _report(self, graph: Graph, path: str, norms: list[Norm]) -> Finding:
        nodes = [norm.output for norm in norms]
        makers = [self._maker(graph, norm) for norm in norms]
        names = list(dict.fromkeys(graph.label(maker) for maker in makers if maker is not None))
        again = len(names) < 2 or self._branch_again(graph, path, len(nodes))
        after = " and ".join(f"`{name}`" for name in names[:3]) + (" ..." if len(names) > 3 else "")
        text = (
            f"{{modules}} is called {len(nodes)} times with its branch: in evaluation all calls use one "
            "average"
            if again
            else f"{{modules}} is called {len(nodes)} times, after {after}: its running statistics are an "
            "average over different tensors and fit none of them"
        )
        return self.finding(
            graph,
            text,
            module=path,
            location=graph.modules[path].origin or nodes[0].location,
            severity=Severity.INFO if again else Severity.WARNING,
            evidence={"calls": len(nodes), "after": names},
            related=_places(nodes[:4]),
            help="Give each place a BatchNorm of its own, or use a norm without running statistics.",
        )

    @staticmethod
    def _maker(graph: Graph, norm: Norm) -> Node | None:
        """The layer with weights whose output, by first inputs, reaches the norm."""
        start = norm.input
        if start is None or start.kind in WEIGHTED:
            return start
        return walk_back(graph, start, lambda one: one.kind not in WEIGHTED, alone=False).source

    @staticmethod
    def _branch_again(graph: Graph, path: str, times: int) -> bool:
        """Does a module around the norm, with a layer of weights inside, run as often as the norm?"""
        for outer in parents(graph, path):
            if outer.path and outer.calls >= times:
                inside = f"{outer.path}."
                return any(
                    node.kind in WEIGHTED and graph.label(node).startswith(inside)
                    for node in graph.by_role("linear")
                )
        return False


def _places(nodes: list[Node]) -> tuple[tuple[str, Location | None], ...]:
    """Where the calls stand; those of one place, as in a branch that runs again, share a label."""
    numbers: dict[Location | None, list[str]] = {}
    for number, node in enumerate(nodes, start=1):
        numbers.setdefault(node.location, []).append(str(number))
    return tuple(
        (f"call {one[0]}" if len(one) == 1 else f"calls {', '.join(one[:-1])} and {one[-1]}", location)
        for location, one in numbers.items()
    )
