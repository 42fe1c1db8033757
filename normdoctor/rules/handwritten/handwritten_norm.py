"""ND901: code that computes a norm which torch has a layer for."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor import facts
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import NAMES, ByHand, by_hand, in_a_loss
from normdoctor.rules.layers import count
from normdoctor.rules.replacements import replacement


class HandwrittenNorm(Rule):
    """Code that computes a norm which torch has a layer for.

    ## What it does
    Names the norm that a forward computes out of means, variances and roots: which one, over which axes,
    with which eps, and the layer or function of torch that computes the same. The calls propose what it
    might be; what is reported was run in float64 and compared with the formula.

    ## Why is this bad?
    It is not wrong. torch's layers take one kernel where the written-out norm takes five to ten
    calls, each of which reads and writes the whole activation, and keeps several of them for the
    backward pass. They compute their statistics in float32 under half precision, and other tools
    know them.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class LayerNorm(nn.Module):
        def __init__(self, dim, eps=1e-5):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.shift = nn.Parameter(torch.zeros(dim))
            self.eps = eps

        def forward(self, x):
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, keepdim=True, unbiased=False)
            return self.scale * (x - mean) / torch.sqrt(var + self.eps) + self.shift  # ND901


    model = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU())
    inputs = torch.randn(4, 8)
    ```

    ```python bad
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)  # ND901


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16), nn.ReLU())
    inputs = torch.randn(4, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 16), nn.RMSNorm(16, eps=1e-6), nn.ReLU())
    inputs = torch.randn(4, 8)
    ```

    A norm of a weight is none of an activation:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class StandardizedConv(nn.Conv2d):
        def forward(self, x):
            w = self.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
            return F.conv2d(x, w, self.bias)


    model = nn.Sequential(StandardizedConv(3, 8, 3), nn.ReLU())
    inputs = torch.randn(2, 3, 8, 8)
    ```

    ## When to ignore
    In code that teaches, in code that must run on versions of torch without the layer, and where
    checkpoints name the parameters in another way.

    ## Fix safety
    Unsafe: the names of parameters change. The fix is offered for a module that is nothing but the norm, and
    applied only where the outputs in train and eval mode are the same with the old state under the new
    names; where the norm divides by n - 1 or adds eps outside the root, torch's layer is only named. torch's
    BatchNorm takes the unbiased variance into its running statistics, whatever the hand-written one does.

    ## References
    - Ba, Kiros and Hinton, 2016, "Layer Normalization"; Zhang and Sennrich, 2019, "Root Mean Square Layer
      Normalization"; Wu and He, 2018, "Group Normalization"; Ioffe and Szegedy, 2015, "Batch
      Normalization"; Ulyanov, Vedaldi and Lempitsky, 2016, "Instance Normalization".
    """

    code = "ND901"
    name = "handwritten-norm"
    category = "handwritten"
    severity = Severity.INFO
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report every confirmed norm that has a name."""
        for found in by_hand(graph):
            norm = found.norm
            over_batch = 0 in norm.reduced and not norm.running  # ND902's concern
            if not norm.kind or norm.inverted or "factor" in norm.evidence or over_batch:
                continue
            own = found.owner is not None and found.owner.qualname.startswith("normdoctor.layers.")
            if own or in_a_loss(graph, found):
                continue
            layer, exact = _replacement(graph, found)
            name = f"{found.owner.type} {{modules}}" if found.owner else "{modules}"
            how = "computes the same" if exact else "comes closest"
            yield self.finding(
                graph,
                f"{name} computes {NAMES[norm.kind]} {_over(found)} by hand; {layer} {how}",
                module=found.module,
                location=found.location,
                evidence={
                    "kind": norm.kind,
                    "reduced": list(norm.reduced),
                    "eps": norm.eps,
                    "eps_place": norm.eps_place,
                    "unbiased": norm.unbiased,
                    "replacement": layer,
                    "exact": exact,
                },
                fix=_fix(graph, found, f"Use {layer}"),
            )


def _fix(graph: Graph, found: ByHand, title: str) -> Fix:
    made = replacement(graph, found)
    if isinstance(made, str) or found.owner is None:
        return Fix(title=title)
    place = found.owner.origin
    step = Edit.build(f"torch.nn.{made.layer}", made.arguments, at=place, carries=made.carries)
    return Fix(title=title, applicability=Applicability.UNSAFE, steps=(step,))


def _over(found: ByHand) -> str:
    """The axes in words."""
    norm, shape = found.norm, found.input.shape
    if norm.frozen:
        return "with running statistics"
    if norm.groups:
        return f"over {norm.groups} groups of channels"
    axes = ", ".join(str(axis) for axis in norm.reduced)
    elements = 1
    for axis in norm.reduced:
        elements *= shape[axis]
    return f"over {'axis' if len(norm.reduced) == 1 else 'axes'} {axes} ({count(elements, 'element')})"


def _replacement(graph: Graph, found: ByHand) -> tuple[str, bool]:
    """The layer of torch that takes its place, and whether it computes exactly the same."""
    norm, shape = found.norm, found.input.shape
    rank = len(shape)
    trailing = norm.reduced == tuple(range(rank - len(norm.reduced), rank))
    exact = norm.eps_place in ("inside", "none") and not norm.unbiased
    eps = f", eps={norm.eps:g}" if norm.eps is not None else ""
    if norm.kind in ("layer_norm", "rms_norm"):
        layer = "nn.LayerNorm" if norm.kind == "layer_norm" else "nn.RMSNorm"
        sizes = [shape[axis] for axis in norm.reduced]
        size = str(sizes[0]) if len(sizes) == 1 else f"{sizes}"
        permuted = "" if trailing else " on the permuted tensor"
        plus = norm.evidence.get("gamma") == "1 + gamma"
        whole = 1
        for one in sizes:
            whole *= one
        scaled = [graph.parameters[name].tensor.size for name in norm.scales if name in graph.parameters]
        exact = exact and not plus and not norm.groups and all(one == whole for one in scaled)
        return f"{layer}({size}{eps}){permuted}{' with weight 1 + gamma' if plus else ''}", exact
    if norm.kind == "group_norm":
        return f"nn.GroupNorm({norm.groups}, {shape[1] if rank > 1 else '...'}{eps})", exact
    if norm.kind == "normalize":
        return _normalize(norm)
    spatial = max(rank - 2, 1)
    channels = shape[1] if rank > 1 else shape[0]
    last = 1 in norm.reduced and rank > 2
    name = "nn.BatchNorm" if norm.kind == "batch_norm" else "nn.InstanceNorm"
    usual = last or norm.frozen or norm.reduced in (tuple(range(2, rank)), (0, *range(2, rank)))
    if norm.kind == "batch_norm":
        usual = usual and (not norm.modes or list(norm.modes.values()) == ["batch", "running"] * 2)
    where = " on the permuted tensor" if last else ""
    features = shape[-1] if last else channels
    return f"{name}{spatial}d({features}{eps}){where}", exact and usual


def _normalize(norm: facts.HandwrittenNorm) -> tuple[str, bool]:
    dim = norm.reduced[0] if len(norm.reduced) == 1 else norm.reduced
    return f"F.normalize(x, dim={dim})", norm.eps_place == "clamp" and not norm.centred
