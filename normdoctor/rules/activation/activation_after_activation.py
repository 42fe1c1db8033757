"""ND302: an activation of an activation."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import Chain, walk_back
from normdoctor.rules.ranges import absorbs, keeps

_ACTIVATIONS = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh sigmoid "
    "tanh softplus softsign".split()
)
_SOFTMAX = frozenset({"softmax", "log_softmax"})
_SQUASHING = frozenset({"sigmoid", "hardsigmoid", "tanh", "softmax"})
#: Kinds that draw random numbers, and kinds that repeat values.
_DRAWN = frozenset("randn randn_like normal rand rand_like uniform".split())
_SPREAD = frozenset("expand expand_as broadcast_to broadcast_tensors".split())
#: What clips the logits of a softmax that stands behind it.
_CLIPPING = frozenset("relu relu6 sigmoid hardsigmoid tanh hardtanh softmax".split())


class ActivationAfterActivation(Rule):
    """An activation is applied to the output of another activation.

    ## What it does
    Finds an activation or softmax whose input is the output of another activation, directly or through
    pooling, flattening and dropout. It is an information where one of the two has no effect
    (ReLU after ReLU), otherwise a warning.

    ## Why is this bad?
    The second activation sees only the range of the first. sigmoid(sigmoid(x)) lies between 0.5 and 0.731
    and its slope stays below 0.06; sigmoid(relu(x)) never says less than 0.5; softmax(relu(x)) cannot
    tell apart the classes with negative scores. Most often one was added in `forward` and another one
    is inside of the layer that is called there.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())

        def forward(self, x):
            return torch.sigmoid(self.body(x))  # ND302


    model = Net()
    inputs = torch.randn(4, 16)
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.ReLU(),  # ND302
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, 10),
        nn.ReLU(),
        nn.Softmax(dim=1),  # ND302
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    Gates multiply in between, and attention scores may be bent before their softmax:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(16, 16)
            self.gate = nn.Linear(16, 16)
            self.score = nn.Linear(16, 1)

        def forward(self, x):
            x = torch.sigmoid(self.gate(x)) * torch.tanh(self.inner(x))
            x = torch.sigmoid(x)
            weight = F.softmax(F.leaky_relu(self.score(x)), dim=1)
            return (weight * x).sum(1)


    model = Net()
    inputs = torch.randn(4, 5, 16)
    ```

    A policy that squashes its action must leave the mean of the distribution alone:

    ```python bad
    import torch
    from torch import nn


    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_std = nn.Linear(16, 4), nn.Linear(16, 4)

        def forward(self, x):
            mean = torch.tanh(self.mean(x))
            std = self.log_std(x).clamp(-5, 2).exp()
            return torch.tanh(mean + std * torch.randn_like(std))  # ND302


    model = Actor()
    inputs = torch.randn(4, 16)
    ```

    ## When to ignore
    Where the second function is meant as a map of the first one's range, and written as an activation for
    brevity. ReLU after ReLU costs time only. The rule is silent behind gates, sums and scalings, for mish
    written by hand (tanh of softplus), for a ReLU of a difference (what lies above a threshold), and for a
    softmax whose output weighs something.

    ## References
    - jianlin-cheng/DProQA issue 3: a gate that is the sigmoid of a sigmoid. Its range is
      [sigmoid(0), sigmoid(1)] = [0.5, 0.731]; its slope s'(s(x)) s'(x) is largest at x = -0.12, with 0.059.
    - thu-ml/tianshou issue 98: the mean of a policy went through tanh, and its sample once more.
    - DepthAnything/Depth-Anything-V2 issue 71: ReLU of ReLU, which is harmless.
    """

    code = "ND302"
    name = "activation-after-activation"
    category = "activation"
    severity = Severity.WARNING

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from each activation to the one in front of it."""
        done: set[tuple[str, str, object]] = set()
        for outer in graph.by_role("activation", "softmax"):
            chain = self._chain(graph, outer)
            inner = chain.source if outer.kind != "tanh" else _mean_of_sample(graph, outer) or chain.source
            if inner is None or not self._pair(graph, inner, outer):
                continue
            key = (graph.label(inner), graph.label(outer), outer.location)
            if key not in done:
                done.add(key)
                yield self._report(graph, inner, outer, chain.passed)

    @staticmethod
    def _chain(graph: Graph, outer: Node) -> Chain:
        def through(node: Node) -> bool:
            return graph.transparent(node) or node.role in ("pool", "dropout")

        chain = walk_back(graph, outer, through)
        if chain.source is None and outer.kind in _SQUASHING:
            # Squashing twice is wrong whoever else reads the tensor between.
            direct = walk_back(graph, outer, graph.transparent, alone=False)
            if direct.source is not None and direct.source.kind in _SQUASHING:
                return direct
        return chain

    @staticmethod
    def _pair(graph: Graph, inner: Node, outer: Node) -> bool:
        if (inner.kind, outer.kind) == ("softplus", "tanh"):  # mish by hand
            return False
        before = graph.inputs(inner)[:1]
        if inner.kind == "relu" and any(one.kind == "sub" and len(one.inputs) == 2 for one in before):
            return False  # what lies above a threshold is computed so (top-k sparsity)
        if outer.kind in _ACTIVATIONS:
            return inner.kind in _ACTIVATIONS | {"softmax"}
        if outer.kind not in _SOFTMAX or inner.kind not in _CLIPPING:
            return False
        if inner.kind == "softmax" and graph.facts.losses:
            return False  # ND310 looks at it, with the loss
        readers = [one for reader in graph.readers(outer) for one in _behind_dropout(graph, reader)]
        return not any(one.role == "gate" or one.kind in ("matmul", "mul", "einsum") for one in readers)

    def _report(self, graph: Graph, inner: Node, outer: Node, passed: tuple[Node, ...]) -> Finding:
        idle = "second" if keeps(outer, inner) else "first" if absorbs(outer, inner) else ""
        between = next((node.kind for node in passed if node.role == "pool"), "")
        behind = f" (with {between} between)" if between else ""
        if idle:
            text = f"{graph.named(outer)} follows {inner.kind}{behind}: the {idle} of the two has no effect"
        else:
            sampled = outer.kind == "tanh" and _mean_of_sample(graph, outer) is inner
            effect = ", to which noise was added" if sampled else _effect(inner, outer)
            text = f"{graph.named(outer)} is applied to the output of {inner.kind}{behind}{effect}"
        return self.finding(
            graph,
            text,
            node=outer,
            severity=Severity.INFO if idle else Severity.WARNING,
            evidence={"first": inner.kind, "second": outer.kind, "first_module": graph.label(inner)},
            related=(("the first activation", graph.where(inner)),),
            fix=Fix(title="Drop one of the two", applicability=Applicability.DISPLAY),
        )


def _mean_of_sample(graph: Graph, outer: Node) -> Node | None:
    """The tanh of a mean to which noise is added, where the sum is squashed again (a policy's action)."""

    def computed(node: Node) -> Node:
        while (graph.transparent(node) or node.kind in _SPREAD) and node.inputs:
            node = graph.nodes[node.inputs[0]]
        return node

    total = computed(graph.nodes[outer.inputs[0]]) if outer.inputs else None
    if total is None or total.kind != "add" or len(total.inputs) != 2:
        return None
    terms = [computed(term) for term in graph.inputs(total)]
    for mean, noise in (terms, terms[::-1]):
        drawn = any(computed(factor).kind in _DRAWN for factor in graph.inputs(noise))
        if mean.kind == "tanh" and noise.kind == "mul" and drawn:
            return mean
    return None


def _behind_dropout(graph: Graph, node: Node) -> list[Node]:
    return graph.readers(node) if node.role == "dropout" else [node]


def _effect(inner: Node, outer: Node) -> str:
    ranges = {
        ("sigmoid", "sigmoid"): ": the result lies between 0.5 and 0.731",
        ("relu", "sigmoid"): ": the result is never below 0.5",
        ("relu6", "sigmoid"): ": the result is never below 0.5",
        ("sigmoid", "tanh"): ": the result lies between 0 and 0.762",
        ("tanh", "tanh"): ": the result lies between -0.762 and 0.762",
        ("tanh", "sigmoid"): ": the result lies between 0.269 and 0.731",
        ("relu", "tanh"): ": the result is never below 0",
    }
    if outer.kind in _SOFTMAX and inner.kind in ("relu", "relu6"):
        return ": all negative scores count as 0"
    if outer.kind in _SOFTMAX and inner.kind in _SQUASHING:
        width = 2.0 if inner.kind == "tanh" else 1.0
        return f": scores differ by {width:g} at most, probabilities by a factor of {2.718281828**width:.3g}"
    return ranges.get((inner.kind, outer.kind), "")
