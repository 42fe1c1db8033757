"""ND315: an in-place activation changes a tensor that is still needed."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number, owner
from normdoctor.rules.ranges import absorbs, keeps


class InplaceOverwritesSkip(Rule):
    """An in-place activation overwrites a tensor that is read later.

    ## What it does
    Finds an activation or dropout with `inplace=True` whose input is read again afterwards, as a skip
    connection or by another branch, by something that was meant to see the original.

    ## Why is this bad?
    With `inplace=True` the result is written into the memory of the input. The skip that was meant to
    carry x carries relu(x): in a residual block the identity path loses all negative values, and the
    block computes relu(x) + f(x). Nothing is raised, since autograd does not need the overwritten tensor
    for a sum.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Residual(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.branch = nn.Sequential(
                nn.ReLU(inplace=True),  # ND315
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 1),
            )

        def forward(self, x):
            return x + self.branch(x)


    model = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8))
    inputs = torch.randn(2, 3, 8, 8)
    ```

    ```python fixed
    import torch
    from torch import nn


    class Residual(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.branch = nn.Sequential(
                nn.ReLU(inplace=False),  # ND315
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, 1),
            )

        def forward(self, x):
            return x + self.branch(x)


    model = nn.Sequential(nn.Conv2d(3, 8, 3), Residual(8))
    inputs = torch.randn(2, 3, 8, 8)
    ```

    Where the norm makes a new tensor first, only that one is overwritten:

    ```python good
    import torch
    from torch import nn


    class PreActivation(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.bn = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Conv2d(channels, channels, 1)
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x):
            out = self.relu(self.bn(x))
            return x + self.shortcut(out) + self.conv(out)


    model = PreActivation(8)
    inputs = torch.randn(2, 8, 8, 8)
    ```

    ## When to ignore
    Where the overwritten value is the one that is wanted, and the model was trained so: then say so in
    the code and use the result of the call. The rule is silent where the in-place call changes nothing
    (ReLU of a ReLU), where its result is not used (`F.relu_(x)` as a statement, which can only mean x),
    and where the later reader applies the same activation again.

    ## Fix safety
    `inplace=False` gives the function that the code reads as. The outputs differ from those of the faulty
    model; that is the purpose. What is verified is that they equal those of the old model in which this one
    call is not in place. It takes the memory of one more activation.

    ## References
    - rosinality/vq-vae-2-pytorch issue 60, mended in ef5f67c: the residual branch of VQ-VAE-2 started with
      an in-place ReLU.
    """

    code = "ND315"
    name = "inplace-overwrites-skip"
    category = "activation"
    severity = Severity.ERROR
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look for reads of the overwritten memory behind each in-place call."""
        done: set[str] = set()
        for node in graph.by_role("activation", "dropout"):
            if node.mutates is None or not node.inputs or graph.label(node) in done:
                continue
            reader = self._late_reader(graph, node)
            if reader is not None:
                done.add(node.module or "")
                yield self._report(graph, node, reader)

    @classmethod
    def _late_reader(cls, graph: Graph, node: Node) -> Node | None:
        """The first node that reads the overwritten tensor by its old name and minds the change."""
        assert node.mutates is not None
        memory = graph.nodes[node.mutates]
        before = graph.nodes[node.inputs[0]]
        if memory.op == "get_attr" or not graph.users(node) or cls._idle(graph, node, before):
            return None
        if not memory.outputs or not before.outputs or memory.outputs[0].size != before.outputs[0].size:
            return None  # a part was overwritten, and other parts may be read
        for alias in cls._old_names(graph, node, memory):
            for reader in graph.users(alias):
                if reader.index > node.index and not cls._unmoved(node, reader):
                    return reader
        return None

    @staticmethod
    def _old_names(graph: Graph, node: Node, memory: Node) -> list[Node]:
        """The overwritten tensor and its whole views that were taken before the call."""
        views = [
            one
            for one in graph.nodes[memory.index + 1 : node.index]
            if one.view_of == memory.index
            and one.mutates is None
            and one.outputs
            and one.outputs[0].size == memory.outputs[0].size
        ]
        return [memory, *views]

    @staticmethod
    def _idle(graph: Graph, node: Node, before: Node) -> bool:
        """Does the in-place call leave its input as it is?"""
        if node.role == "dropout":
            return not number(node.config.get("p"))
        source = before
        while graph.transparent(source) and source.inputs:
            source = graph.nodes[source.inputs[0]]
        return keeps(node, source)

    @staticmethod
    def _unmoved(node: Node, reader: Node) -> bool:
        """Is the change meant (a write into the old name), or of no consequence for this reader?"""
        return reader.kind == "setitem" or absorbs(reader, node)

    def _report(self, graph: Graph, node: Node, reader: Node) -> Finding:
        module = owner(graph, node)
        plain = module.leaf if module is not None else node.op.startswith("call_")
        by = f"`{reader.module}`" if reader.module is not None else reader.kind
        return self.finding(
            graph,
            f"{graph.named(node)} overwrites its input, which {by} reads afterwards and finds changed",
            node=node,
            evidence={"reader": graph.label(reader), "reader_kind": reader.kind},
            related=(("reads the overwritten tensor", reader.location),),
            fix=Fix(
                title="Set inplace=False",
                applicability=Applicability.SAFE if plain else Applicability.DISPLAY,
                edits={"inplace": "False"} if plain else {},
                everywhere=True,
                alters=True,
            ),
        )
