"""ND108: a tensor that is added to itself where a skip belongs."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import inside, residuals, strip

#: Kinds that hand on the same values in the same places.
_UNCHANGED = frozenset(
    "identity contiguous clone to type float half bfloat16 double type_as cpu cuda dropout".split()
)


class SelfAdd(Rule):
    """A block adds a tensor to itself instead of to its input.

    ## What it does
    Finds `x + x`, both operands one tensor, at the end of a block with weights, where the block's input
    has the shape of the sum and would fit as a skip; and inside of a block that has another skip.

    ## Why is this bad?
    The sum is twice the tensor: a scale, no skip. Where the branch is added to itself, the identity path
    through the block is gone; where the input is added to itself, the layers of the branch have no effect
    and get no gradient. It happens where a variable is overwritten before it is added.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()

        def forward(self, x):
            x = self.relu(self.bn1(self.conv1(x)))
            x = self.bn2(self.conv2(x))
            return self.relu(x + x)  # ND108


    model = Block(8)
    inputs = torch.randn(2, 8, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()

        def forward(self, x):
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return self.relu(x + y)


    model = Block(8)
    inputs = torch.randn(2, 8, 8, 8)
    ```

    A factor of two in the middle of a network is a scale, and may be meant:

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 32)
            self.last = nn.Linear(32, 16)

        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.last(x + x)


    model = Net()
    inputs = torch.randn(4, 16)
    ```

    ## When to ignore
    Where twice the tensor is what is meant; `2 * x` says so. The rule is silent where no input of the
    block has the shape of the sum.

    ## References
    - He, Zhang, Ren and Sun, 2016, "Identity Mappings in Deep Residual Networks": what the skip is for.
    """

    code = "ND108"
    name = "self-add"
    category = "placement"
    severity = Severity.WARNING

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look for sums whose two operands are one tensor."""
        around = {residual.scope for residual in residuals(graph)}
        for node in graph.by_role("add"):
            if node.kind != "add" or not self._twice(graph, node):
                continue
            block = [one for one in graph.nodes if self._within(one, node)]
            layers = [one for one in block if one.role in ("linear", "attention") and one.index < node.index]
            if not layers or not self._fits(graph, node, layers):
                continue
            if node.scope in around or self._last(graph, node):
                yield self._report(graph, node, graph.through(graph.nodes[node.inputs[0]]) in layers)

    @staticmethod
    def _twice(graph: Graph, node: Node) -> bool:
        """Are both operands the same tensor, through identities and casts?"""
        operands = node.config.get("operands")
        if isinstance(operands, list) and len(operands) == 2 and operands[0] == operands[1] == node.inputs[0]:
            return True
        made = [_same(graph, one) for one in graph.inputs(node)]
        return len(made) == 2 and made[0] is made[1]

    @staticmethod
    def _within(one: Node, node: Node) -> bool:
        same = one.call == node.call or one.scope != node.scope
        return inside(one.scope, node.scope) and same

    @classmethod
    def _fits(cls, graph: Graph, node: Node, layers: list[Node]) -> bool:
        """Has something that the block was given the shape of the sum?"""
        first = layers[0].index
        given = [
            one
            for one in graph.nodes[: first + 1]
            if (one.role == "input" or not cls._within(one, node)) and one.shape == node.shape
        ]
        return any(
            cls._within(user, node) for one in given for user in graph.users(one) if user.op != "output"
        )

    @classmethod
    def _last(cls, graph: Graph, node: Node) -> bool:
        """Is the sum the last that the block does, up to an activation, a norm or a reshape?"""
        stack, seen = [node], {node.index}
        while stack:
            for reader in graph.users(stack.pop()):
                if reader.index in seen or reader.op == "output" or not cls._within(reader, node):
                    continue
                if reader.role not in ("activation", "norm", "reshape", "dropout"):
                    return False
                seen.add(reader.index)
                stack.append(reader)
        return True

    def _report(self, graph: Graph, node: Node, own: bool) -> Finding:
        operand = strip(graph, graph.nodes[node.inputs[0]])
        name = graph.label(operand) if operand.module is not None else operand.kind
        return self.finding(
            graph,
            f"{{modules}} adds the output of `{name}` to itself where its input would fit as a skip",
            node=node,
            evidence={"operand": name, "shape": list(node.shape)},
            related=(("the tensor that is added to itself", operand.location),),
            fix=Fix(
                title="Keep the block's input in a variable of its own", applicability=Applicability.DISPLAY
            ),
        )


def _same(graph: Graph, node: Node) -> Node:
    """What computed the values of a node, in the same places."""
    while node.kind in _UNCHANGED and graph.transparent(node) and node.inputs:
        node = graph.nodes[node.inputs[0]]
    return node
