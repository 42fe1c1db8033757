"""ND106: a norm that cancels the scale which spectral or weight normalization sets."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import preserves, walk_back
from normdoctor.rules.layers import WEIGHTED, beside, frozen

_SCALE_FREE = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})


class NormAfterWeightReparametrization(Rule):
    """A norm behind a layer whose weight is normalized already.

    ## What it does
    Finds convolutions and linear layers under spectral or weight normalization whose output goes, and
    nowhere else, into a norm that divides by the standard deviation.

    ## Why is this bad?
    The norm divides the scale of the weight out again. Spectral normalization bounds the Lipschitz
    constant of the layer; behind a BatchNorm no bound is left, since the norm multiplies by gamma over
    sigma, whatever that is. Under weight normalization the length g of each filter has no effect at
    all on the output: it is a dead parameter.

    ## Example
    ```python bad
    import torch
    from torch import nn
    from torch.nn.utils.parametrizations import spectral_norm

    model = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 16, 4, 2, bias=False)),
        nn.BatchNorm2d(16),  # ND106
        nn.LeakyReLU(0.2),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn
    from torch.nn.utils.parametrizations import spectral_norm

    model = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 16, 4, 2)), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    In generators that follow SAGAN or BigGAN, which have both: there it stabilizes the training, though
    it bounds nothing.

    ## References
    - Miyato et al., 2018, "Spectral Normalization", section 4: the critic has no other normalization.
    - Salimans and Kingma, 2016, "Weight Normalization", section 2.
    """

    code = "ND106"
    name = "norm-after-weight-reparametrization"
    category = "placement"

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what stands in front of every norm."""
        for norm in graph.norms:
            if norm.kind not in _SCALE_FREE or norm.handwritten is not None or frozen(graph, norm.output):
                continue
            before = walk_back(graph, norm.output, preserves(graph)).source
            module = graph.module_of(before) if before is not None else None
            if before is None or module is None or before.kind not in WEIGHTED:
                continue
            way = module.reparametrized.get("weight", "").removeprefix("parametrizations.")
            if way not in ("weight_norm", "spectral_norm"):
                continue
            bound = (
                "the bound of its spectral norm" if way == "spectral_norm" else "the length of its filters"
            )
            yield self.finding(
                graph,
                f"{graph.named(norm.output)} cancels the scale of `{beside(graph, before, norm.output)}`, "
                f"which is under {way}: {bound} has no effect",
                node=norm.output,
                severity=Severity.WARNING if way == "spectral_norm" else Severity.INFO,
                evidence={"layer": module.path, "reparametrization": way},
                related=((f"under {way}", module.origin),),
            )
