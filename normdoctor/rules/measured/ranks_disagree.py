"""ND713: ranks-disagree."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites


class RanksDisagree(base.Rule):
    """Norms that should be the same on all ranks and are not.

    ## What it does
    In a training on several ranks, compares gamma, beta and running statistics of every norm between the
    ranks, value by value, when the report is asked for on all of them: `w.report(all_ranks=True)`. It is an
    error where parameters differ, and a warning where only running statistics do. Statistics that differ
    are left alone under a DistributedDataParallel that broadcasts buffers: there the next forward makes them
    equal again. Ranks that hold different models, or parts of one, are not compared. A module with
    running statistics of its own counts as a norm.

    ## Why is this bad?
    Replicas that have drifted apart are different models: the averaged gradient is right for none of them.
    Running statistics that each rank keeps for itself give each rank a different evaluation, and the
    checkpoint that rank 0 writes holds what rank 0 has seen alone.

    ## Example
    Buffers that are not broadcast:

        model = DistributedDataParallel(net, broadcast_buffers=False)  # at every BatchNorm
        with normdoctor.watch(model) as w:
            train(model, loader, w)
        print(w.report(all_ranks=True))  # on every rank

    `SyncBatchNorm.convert_sync_batchnorm(net)` keeps them equal.

    ## When to ignore
    When each rank is meant to have statistics of its own, as for one domain a rank.

    ## References
    - https://pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
      (`broadcast_buffers`)
    - https://pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html
    - https://github.com/pytorch/pytorch/issues/13711
    """

    code = "ND713"
    name = "ranks-disagree"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"ranks"})
    examples = False

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Name each norm once: for its parameters, else for its buffers."""
        found: dict[str, list[Site]] = {}
        for site in sites(graph, need="ranks"):
            if site.figures["differs"] and not (site.kind == "buffer" and site.figures["broadcast"]):
                found.setdefault(site.module, []).append(site)
        for module, differing in found.items():
            parameters = [site for site in differing if site.kind == "parameter"]
            yield self._finding(graph, module, parameters or differing, severe=bool(parameters))

    def _finding(self, graph: Graph, module: str, differing: list[Site], *, severe: bool) -> Finding:
        worst = max(differing, key=lambda site: float(site.figures["difference"]))
        names = ", ".join(site.name.rpartition(".")[2] for site in differing)
        figures = worst.figures
        return self.finding(
            graph,
            f"{names} of {{modules}} differ between {figures['ranks']} ranks, by up to "
            f"{figures['difference']:.3g} (largest value {figures['largest']:.3g})",
            module=module,
            severity=Severity.ERROR if severe else Severity.WARNING,
            evidence={
                "tensors": [site.name for site in differing],
                "ranks": figures["ranks"],
                "difference": figures["difference"],
                "largest": figures["largest"],
            },
            help="Broadcast parameters once at the start and average all gradients."
            if severe
            else "Use SyncBatchNorm, broadcast_buffers=True, or reduce the statistics before evaluating.",
        )
