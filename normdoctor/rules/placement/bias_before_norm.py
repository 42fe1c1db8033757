"""ND101: a bias that the norm behind it subtracts."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node, ParameterFact
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import follow_axis, preserves, walk_back_from
from normdoctor.rules.layers import (
    CONVS,
    DENSE,
    TRANSPOSED,
    bias_of,
    channel_axis,
    channels,
    count,
    frozen,
    owner,
)


class BiasBeforeNorm(Rule):
    """A bias that the norm behind it subtracts again.

    ## What it does
    Finds a convolution or linear layer with a bias whose output goes into a norm, and nowhere else,
    that subtracts the mean of each channel: BatchNorm, InstanceNorm, or GroupNorm with as many groups
    as channels.

    ## Why is this bad?
    The bias adds one constant to all values of a channel, and the norm subtracts the mean of the
    channel, the constant with it. In training the bias changes nothing and its gradient is zero but
    for rounding; it still takes memory, an addition over the whole output, and a place in the
    optimizer, where weight decay moves it. The norm's own bias does the work. In a ResNet-50 with
    biases before each norm these are 26,560 parameters that learn nothing.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),  # ND101
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python fixed
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),  # ND101
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)  # ND101
            self.norm = nn.InstanceNorm2d(8, affine=True)

        def forward(self, x):
            return F.relu(self.norm(self.conv(x)))


    model = Block()
    inputs = torch.randn(4, 3, 8, 8)
    ```

    LayerNorm, RMSNorm and GroupNorm with fewer groups than channels normalize over several channels
    at once. There the differences between the biases of the channels survive:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, 32),
        nn.LayerNorm(32),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    Here the bias belongs to 8 * 4 * 4 features and the norm takes the mean of 8 channels:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(10, 8 * 4 * 4),
        nn.Unflatten(1, (8, 4, 4)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 10)
    ```

    ## When to ignore
    Where the layout of a checkpoint must be kept. The rule is silent where the norm is frozen in a
    model that trains, since running statistics do not follow the bias, and where something else reads
    the bias or the convolution's output.

    ## Fix safety
    `bias=False` keeps the function of a model that is built anew. In a trained model the running mean
    holds the bias too: subtract the bias from `running_mean` before it is dropped, and the outputs stay
    the same in both modes. A state_dict with the old bias then needs that key removed.

    ## References
    - Ioffe and Szegedy, 2015, "Batch Normalization", section 3.2: "the bias b can be ignored since its
      effect will be canceled by the subsequent mean subtraction".
    - torchvision, timm and most reference code build such layers with `bias=False`.
    """

    code = "ND101"
    name = "bias-before-norm"
    category = "placement"
    severity = Severity.INFO
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each bias all of whose readers feed such a norm."""
        cancelled: dict[int, tuple[Norm, ParameterFact]] = {}
        for norm in graph.norms:
            if (layer := self._cancelled(graph, norm)) is not None and (bias := bias_of(graph, layer)):
                cancelled[layer.index] = (norm, bias)
        wanted = {bias.name for _, bias in cancelled.values() if not bias.aliases}
        for node in graph.nodes:
            if node.index not in cancelled:
                wanted.difference_update(node.parameters)  # read elsewhere
        for index, (norm, bias) in cancelled.items():
            if bias.name in wanted:
                wanted.remove(bias.name)
                yield self._report(graph, graph.nodes[index], norm, bias)

    @staticmethod
    def _cancelled(graph: Graph, norm: Norm) -> Node | None:
        """The layer whose bias `norm` subtracts, None where there is none."""
        shape = norm.input.shape if norm.input is not None else ()
        if len(shape) < 2 or norm.kind == "normalize":
            return None
        by_hand = norm.handwritten
        each = norm.kind in ("batch_norm", "instance_norm") or by_hand is not None
        each = each or (norm.kind == "group_norm" and norm.output.config.get("num_groups") == shape[1])
        if not each or frozen(graph, norm.output):
            return None
        if by_hand is not None and (not by_hand.centred or by_hand.inverted or norm.kind == "group_norm"):
            return None
        layer, passed = walk_back_from(graph, norm, preserves(graph))
        if layer is None or layer.kind not in CONVS | TRANSPOSED | DENSE or bias_of(graph, layer) is None:
            return None
        sizes = channels(graph, layer)
        axis = follow_axis(layer, channel_axis(layer), passed)
        if sizes is None or axis is None or sizes[1] != shape[axis]:
            return None
        kept = bool(by_hand.reduced) and axis not in by_hand.reduced if by_hand is not None else axis == 1
        return layer if kept else None

    @staticmethod
    def _running_means(graph: Graph, norm: Norm) -> tuple[str, ...]:
        """Names of the tensors of which one is the running mean that holds the bias."""
        if norm.handwritten is not None:
            return norm.handwritten.tracked
        layer = owner(graph, norm.output)
        names = [one.name for one in graph.facts.parameters if layer is not None and one.module == layer.path]
        held = [
            graph.parameters[name] for name in (*norm.output.parameters, *names) if name in graph.parameters
        ]
        return tuple(dict.fromkeys(one.name for one in held if one.kind != "parameter" and one.tensor.shape))

    def _report(self, graph: Graph, layer: Node, norm: Norm, bias: ParameterFact) -> Finding:
        size = bias.tensor.size
        module, target = owner(graph, layer), owner(graph, norm.output)
        what = target.type if target is not None else norm.kind
        plain = module is not None and module.leaf
        fix = Fix(
            title="Build the layer without a bias",
            applicability=Applicability.SAFE if plain else Applicability.DISPLAY,
            edits={"bias": "False"} if plain else {},
            absorbed=((bias.name, *self._running_means(graph, norm)),),
        )
        return self.finding(
            graph,
            f"the bias of {{modules}} ({count(size, 'value')}) is subtracted again by the {what} behind it",
            node=layer,
            evidence={"parameter": bias.name, "values": size, "norm": graph.label(norm.output)},
            related=((f"{what} subtracts the mean of each channel", graph.where(norm.output)),),
            fix=fix,
        )
