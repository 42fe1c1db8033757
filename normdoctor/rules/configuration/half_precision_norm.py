"""ND207: a norm whose parameters or statistics are kept in half precision."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import BATCH_NORMS, INSTANCE_NORMS, NORMS

_HALF = ("float16", "bfloat16")


class HalfPrecisionNorm(Rule):
    """A norm that keeps its parameters or running statistics in half precision.

    ## What it does
    Finds norms with float16 or bfloat16 parameters or running statistics. It warns of BatchNorm and
    InstanceNorm with running statistics; of LayerNorm, RMSNorm and GroupNorm, whose parameters large
    language models keep in bfloat16 on purpose, it informs.

    ## Why is this bad?
    Running statistics are moving averages: each step adds a hundredth of a difference, and in bfloat16,
    with three digits, such a sum stands still. A variance above 65504 is infinite in float16, one
    below 6e-8 zero. `model.half()` casts the norms along with everything else; autocast does not.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND207
        nn.ReLU(),
    ).half()
    inputs = torch.randn(4, 3, 8, 8).half()
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    For inference with statistics that were computed in float32 and fit into the range.

    ## Fix safety
    Unsafe: numbers change. `norm.float()` keeps the norm in float32; torch's BatchNorm takes half inputs
    with float32 parameters.

    ## References
    - Micikevicius et al., 2017, "Mixed Precision Training": batch statistics are computed in float32.
    - NVIDIA/apex pull request 144: BatchNorm stays in float32 when a model is cast to half.
    """

    code = "ND207"
    name = "half-precision-norm"
    category = "configuration"
    requires = frozenset()

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the dtype of what each norm holds."""
        for module in graph.facts.modules:
            held = [graph.parameters[name] for name in module.parameters if name in graph.parameters]
            half = [one for one in held if one.tensor.dtype in _HALF]
            if module.base not in NORMS or not half:
                continue
            dtype = half[0].tensor.dtype
            running = any(one.attribute.startswith("running") for one in half)
            grave = module.base in BATCH_NORMS or (module.base in INSTANCE_NORMS and running)
            what = "its running statistics" if running else "its parameters"
            yield self.finding(
                graph,
                f"{module.type} {{modules}} keeps {what} in {dtype}",
                module=module.path,
                severity=Severity.WARNING if grave else Severity.INFO,
                evidence={"dtype": dtype, "tensors": [one.attribute for one in half]},
                fix=Fix(title="norm.float(), or autocast instead of half()",
                        applicability=Applicability.UNSAFE),
            )  # fmt: skip
