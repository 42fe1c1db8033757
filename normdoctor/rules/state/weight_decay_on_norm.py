"""ND508: weight decay of the scales and shifts of norms."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import OptimizerFact
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import count, number
from normdoctor.rules.normparameters import norm_parameters


class WeightDecayOnNorm(Rule):
    """The optimizer decays the scales and shifts of norms.

    ## What it does
    Finds parameter groups with `weight_decay` above 0 that hold parameters of norms. Norms are told by
    their type and by what they compute, not by names such as `LayerNorm.weight`: RMSNorm and
    hand-written norms with a `gamma` count.

    ## Why is this bad?
    Weight decay pulls towards zero. The natural value of a scale is one, so decay works against what the
    norm is for, and it controls no capacity: the scale of a layer in front of a norm does not matter
    anyway. Recipes for ResNets, transformers and ViTs leave norms and biases out; lists of names to leave
    out miss norms that are called otherwise. The effect is small where the decay is small.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.GELU(),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)  # ND508
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.GELU(),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    optimizer = torch.optim.AdamW([
        {"params": decayed, "weight_decay": 0.05},
        {"params": others, "weight_decay": 0.0},
    ])
    ```

    ## When to ignore
    Where a recipe decays everything and its results are to be reproduced.

    ## References
    - He et al. 2019, Bag of Tricks for Image Classification, section 3.1: no bias decay.
    - huggingface/transformers pull request 35927: parameters of RMSNorm that a list of names missed.
    """

    code = "ND508"
    name = "weight-decay-on-norm"
    category = "state"
    severity = Severity.INFO
    requires = frozenset({"optimizer"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """One finding for each optimizer, with all groups together."""
        norms = norm_parameters(graph)
        for optimizer in graph.facts.optimizers:
            decayed: dict[str, float] = {}
            biases = 0
            for group in optimizer.groups:
                decay = number(group.options.get("weight_decay")) or 0.0
                if decay > 0:
                    decayed |= {name: decay for name in group.parameters if name in norms}
                    biases += sum(name not in norms and name.endswith("bias") for name in group.parameters)
            if decayed:
                yield self._report(graph, optimizer, norms, decayed, biases)

    def _report(
        self,
        graph: Graph,
        optimizer: OptimizerFact,
        norms: dict[str, str],
        decayed: dict[str, float],
        biases: int,
    ) -> Finding:
        paths = tuple(dict.fromkeys(norms[name] for name in decayed))
        types = ", ".join(sorted({graph.modules[path].type for path in paths}))
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(decayed.values())))
        also = f" and {count(biases, 'bias').replace('biass', 'biases')}" if biases else ""
        keep = list(decayed)
        return self.finding(
            graph,
            f"{optimizer.type} decays {count(len(decayed), 'parameter')} of {count(len(paths), 'norm')} "
            f"({types}){also} by {rates}",
            module=paths[0],
            location=optimizer.location,
            evidence={
                "optimizer": optimizer.type,
                "parameters": len(decayed),
                "norms": len(paths),
                "biases": biases,
                "weight_decay": max(decayed.values()),
                "names": keep[:12],
            },
            fix=Fix(
                title="Make a group of its own with weight_decay=0 for parameters with one axis",
                applicability=Applicability.DISPLAY,
            ),
        )
