"""ND510: everything but the norms is frozen."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import count
from normdoctor.rules.normparameters import norm_parameters


class OnlyNormTrainable(Rule):
    """Only the parameters of norms require gradients.

    ## What it does
    Finds models whose norms are trainable while all other parameters are frozen.

    ## Why is this bad?
    Often this is what a loop that froze all layers by type or by name has left over: the model can still
    change, by the scales and shifts alone, although it was meant to be frozen; and with BatchNorm in
    train mode its statistics move as well.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(  # ND510
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.requires_grad_(False)
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    model[0].requires_grad_(False)
    model[1].requires_grad_(False).eval()
    model.append(nn.Conv2d(8, 4, 1))
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ## When to ignore
    Where the norms alone are meant to be trained, as in test-time adaptation and in fine-tuning of
    scales and shifts. That is why findings have low confidence.

    ## References
    - Frankle et al. 2021, Training BatchNorm and Only BatchNorm: what a network can do so.
    """

    code = "ND510"
    name = "only-norm-trainable"
    category = "state"
    severity = Severity.WARNING
    confidence = Confidence.LOW
    requires = frozenset()

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Count trainable parameters in and outside of norms."""
        norms = norm_parameters(graph)
        own = [one for one in graph.facts.parameters if one.kind == "parameter"]
        trained = [one for one in own if one.trainable]
        others = [one for one in own if one.name not in norms]
        if not trained or not others or any(one.name not in norms for one in trained):
            return
        values = sum(one.tensor.size for one in trained)
        yield self.finding(
            graph,
            f"only norms can be trained: {count(values, 'value')} in {count(len(trained), 'parameter')}, "
            f"while {count(len(others), 'parameter')} of other layers are frozen",
            module="",
            evidence={"trainable": len(trained), "values": values, "frozen": len(others)},
        )
