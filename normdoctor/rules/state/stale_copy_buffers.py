"""ND513: a moving average whose norms kept their old statistics."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact, ParameterFact, TensorComparison, WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import BATCH_NORMS, count

#: Initial values of the running statistics.
_INITIAL = {"running_mean": 0.0, "running_var": 1.0}


class StaleCopyBuffers(Rule):
    """The parameters of a copy follow the online model, its running statistics do not.

    ## What it does
    Compares a copy with `reference=`, the online model: finds BatchNorms whose running statistics are at
    their initial values while those of the online model have moved; and copies whose parameters all
    equal those of the online model while the running statistics differ.

    ## Why is this bad?
    Moving averages and target networks are often updated by a loop over `parameters()`, which leaves
    buffers out. In evaluation the copy then normalizes with the statistics of its first day, and its
    accuracy falls, all the more the longer the training goes on.

    ## Example
    ```python bad
    import copy

    import torch
    from torch import nn

    torch.manual_seed(0)
    reference = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),  # ND513, in the copy
    )
    model = copy.deepcopy(reference)
    for _ in range(3):
        reference(1 + torch.randn(4, 3, 8, 8))
    for ours, theirs in zip(model.parameters(), reference.parameters()):
        ours.data.lerp_(theirs.data, 0.1)
    inputs = torch.randn(2, 3, 8, 8)
    ```

    ```python good
    import copy

    import torch
    from torch import nn

    torch.manual_seed(0)
    reference = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = copy.deepcopy(reference)
    for _ in range(3):
        reference(1 + torch.randn(4, 3, 8, 8))
    model.load_state_dict(reference.state_dict())
    inputs = torch.randn(2, 3, 8, 8)
    ```

    ## When to ignore
    Where the copy gets its statistics later, by `update_bn` or by forwards of its own in train mode.

    ## References
    - torch.optim.swa_utils.AveragedModel: `use_buffers`, and `update_bn`.
    - CuriousAI/mean-teacher issue 9; lucidrains/ema-pytorch issue 8; pytorch/ignite issue 2590.
    """

    code = "ND513"
    name = "stale-copy-buffers"
    category = "state"
    severity = Severity.WARNING
    requires = frozenset({"reference", "weights"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare the statistics of every BatchNorm with those of the reference."""
        reference = graph.facts.reference
        assert reference is not None
        tensors = reference.tensors
        parameters = [one for one in graph.facts.parameters if one.kind == "parameter"]
        compared = [tensors[one.name] for one in parameters if one.name in tensors]
        followed = bool(compared) and all(one.equal for one in compared)
        norms = [module for module in graph.facts.modules if module.base in BATCH_NORMS]
        for module in norms:
            own = {graph.parameters[name].attribute: graph.parameters[name] for name in module.parameters}
            stale = [
                name for name in _INITIAL
                if name in own and own[name].name in tensors
                and self._stale(graph, own[name], tensors[own[name].name], followed)
            ]  # fmt: skip
            if stale:
                yield self._report(graph, module, stale, own, tensors, followed)

    @staticmethod
    def _stale(graph: Graph, one: ParameterFact, beside: TensorComparison, followed: bool) -> bool:
        if beside.equal or beside.reference is None or not beside.reference.finite:
            return False
        if followed:
            return (beside.distance or 0.0) > 1e-4 * max(1.0, abs(beside.reference.maximum))
        ours = (graph.facts.weights or {}).get(one.name)
        first = _INITIAL[one.attribute]
        return ours is not None and _is_constant(ours, first) and not _is_constant(beside.reference, first)

    def _report(
        self,
        graph: Graph,
        module: ModuleFact,
        stale: list[str],
        own: dict[str, ParameterFact],
        tensors: dict[str, TensorComparison],
        followed: bool,
    ) -> Finding:
        how = "all parameters equal those of the reference" if followed else "they are as at the beginning"
        apart = {name: tensors[own[name].name].distance for name in stale}
        listed = " and ".join(f"{name} by {apart[name]:.3g}" for name in stale if apart[name] is not None)
        off = f": off by at most {listed}" if listed else ""
        return self.finding(
            graph,
            f"{{modules}}: {count(len(stale), 'buffer')} did not follow the reference ({how}){off}",
            module=module.path,
            evidence={"distance": apart},
            help="Copy or average the buffers too, or run update_bn on the copy.",
        )


def _is_constant(fact: WeightFact, value: float) -> bool:
    return fact.finite and fact.minimum == fact.maximum == value
