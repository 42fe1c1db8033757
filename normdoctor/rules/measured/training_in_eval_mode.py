"""ND711: training-in-eval-mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import modes, norm_modes, origin_of, spread_over


class TrainingInEvalMode(base.Rule):
    """The training goes on in eval mode: nobody called train() after an evaluation.

    ## What it does
    Follows the modes of a watched training and says so when the last three steps or more were made with
    the whole model in eval mode, and the model was in train mode at an earlier step or when the watch
    began; or when such steps came behind an evaluation in eval mode, and before others in train mode. The
    BatchNorms (or, without any, the dropout layers) that changed their mode are named.

    BatchNorms that are in eval mode inside of a model in train mode are frozen on purpose, and silent, also
    when that begins late; so is a model that never was in train mode.

    ## Why is this bad?
    BatchNorm goes on with running statistics that no longer move while the weights in front of it do, and
    the gradient takes no account of them: activations drift. Dropout is off.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),  # ND711
        nn.ReLU(),
        nn.Linear(16, 2),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.train()
        for _ in range(3):
            for _ in range(4):
                x = torch.randn(32, 8)
                loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.step(loss)
            model.eval()
            with torch.no_grad():
                model(torch.randn(32, 8)).argmax(1)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model.train()
            for _ in range(4):
                x = torch.randn(32, 8)
                loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.step(loss)
            model.eval()
            with torch.no_grad():
                model(torch.randn(32, 8)).argmax(1)
    ```

    ## When to ignore
    When a pretrained model is fine-tuned with fixed statistics: call eval() on its norms and leave the
    model itself in train mode.

    ## References
    - PyTorch documentation, torch.nn.Module.train
    - asyml/texar-pytorch issue 310: no `model.train()` after the evaluation of an epoch.
    """

    code = "ND711"
    name = "training-in-eval-mode"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"modes"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least number of steps in a row."""

        steps: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the last steps by what was before."""
        run = modes(graph)
        if run is None:
            return
        last = run["eval_run"] >= self.options.steps and (run["initially"] or run["train_steps"])
        if not last and run["lapsed"] < self.options.steps:
            return
        changed = [
            one["module"]
            for one in norm_modes(graph)
            if one["trainable"]
            and one["eval_run" if last else "eval_steps"]
            and (one["initially"] or one["train_steps"])
        ]
        kind, effect = "BatchNorm", "uses running statistics that no longer follow"
        if not changed:
            changed, kind, effect = run["dropouts"], "dropout", "drops nothing"
        if not changed or (kind == "dropout" and any(True for _ in norm_modes(graph))):
            return
        finding = self.finding(
            graph,
            f"{self._steps(run) if last else self._lapses(run)}: {{modules}} {effect}",
            module=changed[0],
            location=origin_of(graph, changed[0]),
            evidence={
                "eval_run": run["eval_run"],
                "eval_steps": run["eval_steps"],
                "train_steps": run["train_steps"],
                "lapsed": run["lapsed"],
                "layers": len(changed),
            },
            help="Call model.train() at the start of each epoch, and after each evaluation.",
        )
        yield spread_over(finding, changed)

    def _steps(self, run: dict[str, Any]) -> str:
        return (
            f"the last {run['eval_run']} steps of training were made in eval mode, after "
            f"{run['train_steps']} in train mode"
        )

    def _lapses(self, run: dict[str, Any]) -> str:
        times = "once" if run["lapses"] == 1 else f"{run['lapses']} times"
        return (
            f"{run['lapsed']} of {run['steps']} steps of training were made in eval mode, {times} behind an "
            f"evaluation that left the model in it"
        )
