"""ND122: the old spectral_norm in eval mode before its power iteration has run."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions


class SpectralNormNotReady(Rule):
    """A weight under `spectral_norm` is divided by a number that is not its norm yet.

    ## What it does
    Finds a layer under the old `torch.nn.utils.spectral_norm` that is in eval mode, and whose effective
    weight has a largest singular value of more than two.

    ## Why is this bad?
    The old function starts from random vectors u and v and improves them by one power iteration in each
    forward in train mode. In eval mode it divides by u W v as it is. Before any training forward that
    number has nothing to do with the largest singular value: it is often ten times too small, so that
    the weight is ten times too large, and its sign is random. The layer has no Lipschitz bound, and the
    output of the net is arbitrary.

    ## Example
    ```python bad
    import torch
    from torch import nn
    from torch.nn.utils import spectral_norm

    model = nn.Sequential(
        spectral_norm(nn.Linear(64, 128)),  # ND122
        nn.LeakyReLU(0.2),
        nn.Linear(128, 1),
    ).eval()
    inputs = torch.randn(4, 64)
    ```

    ```python good
    import torch
    from torch import nn
    from torch.nn.utils.parametrizations import spectral_norm

    model = nn.Sequential(
        spectral_norm(nn.Linear(64, 128)),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 1),
    ).eval()
    inputs = torch.randn(4, 64)
    ```

    ## When to ignore
    Where the model is trained, or a checkpoint with u and v is loaded, before it is used. The rule is
    silent in train mode, where the first forward mends it, and once the singular value is right.

    ## Fix safety
    Unsafe: the parametrization has other names in the state dict, and other numbers come out.

    ## References
    - torch.nn.utils.parametrizations.spectral_norm, which runs 15 iterations when it is built.
    - Miyato, Kataoka, Koyama and Yoshida, 2018, "Spectral Normalization", algorithm 1.
    """

    code = "ND122"
    name = "spectral-norm-not-ready"
    category = "placement"
    severity = Severity.ERROR
    fixable = True
    requires = frozenset({"weights"})

    class Options(RuleOptions, frozen=True):
        """`norm`: the largest singular value of the effective weight that is let pass; it should be 1."""

        norm: float = 2.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each layer under the old spectral_norm."""
        for name, value in sorted((graph.facts.weights or {}).items()):
            parameter = graph.parameters.get(name)
            module = graph.modules.get(parameter.module) if parameter is not None else None
            if module is None or module.training or value.spectral_norm is None:
                continue
            if value.spectral_norm > self.options.norm:
                yield self.finding(
                    graph,
                    "spectral_norm of {modules} has run no power iteration yet: in eval mode the largest "
                    f"singular value of its weight is {value.spectral_norm:.3g} instead of 1",
                    module=module.path,
                    evidence={"parameter": name, "spectral_norm": value.spectral_norm},
                    fix=Fix(
                        title="Use torch.nn.utils.parametrizations.spectral_norm",
                        applicability=Applicability.UNSAFE,
                        steps=(
                            Edit.swap(
                                "torch.nn.utils.parametrizations.spectral_norm",
                                old="torch.nn.utils.spectral_norm",
                            ),
                        ),
                        everywhere=True,
                    ),
                )
