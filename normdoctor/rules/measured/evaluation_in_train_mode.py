"""ND710: evaluation-in-train-mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import (
    FEWEST_STEPS,
    OFTEN,
    live_evaluations,
    modes,
    norm_modes,
    origin_of,
    spread_over,
)


class EvaluationInTrainMode(base.Rule):
    """The model is evaluated while BatchNorm or dropout is in train mode.

    ## What it does
    Follows the modes of a watched training and says so when the model runs without gradients in train
    mode: between few steps only, under `torch.inference_mode`, or on the same tensors again and again. Two
    forwards or more between few steps count, too, when gradients are on and no backward comes through them.
    A watch without any step is one of an evaluation: three forwards without gradients in train mode are
    reported there, and three that ask for the gradient of their input (an attack, a saliency map).

    What runs without gradients between most steps is a part of the training (the generator of a GAN, a
    teacher, pseudo-labels) and silent, as are `torch.optim.swa_utils.update_bn` and other recalibrations
    (the momentum is changed, or an evaluation in eval mode follows), dropout that is switched on by
    itself in a model in eval mode, several passes of one batch through dropout (Monte Carlo), and samples of
    a generator.

    ## Why is this bad?
    BatchNorm normalizes each evaluation batch by itself, so that scores depend on how it was put together,
    and takes the evaluation data into its running statistics. Dropout makes the scores random and low.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),  # ND710
        nn.ReLU(),
        nn.Linear(16, 2),
    )


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
            with torch.no_grad():
                for _ in range(3):
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
                for _ in range(3):
                    model(torch.randn(32, 8)).argmax(1)
    ```

    A trained model that was loaded and not put into eval mode:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),  # ND710
        nn.ReLU(),
        nn.Linear(16, 2),
    )


    def train(watch):
        with torch.no_grad():
            for _ in range(4):
                model(torch.randn(32, 8)).argmax(1)
    ```

    ## When to ignore
    When running statistics are computed anew by forwards in train mode and nothing is scored.

    ## References
    - PyTorch documentation, torch.nn.Module.eval; torch.optim.swa_utils.update_bn
    - pliang279/MultiBench issue 26: `model.train()` in front of the validation loop.
    """

    code = "ND710"
    name = "evaluation-in-train-mode"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"modes"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge what ran without gradients between the steps."""
        run = modes(graph)
        told = self._told(graph, run) if run else None
        if run is None or told is None:
            return
        norms = {figures["module"] for figures in norm_modes(graph)}
        live = run["live"] or [""]
        what = "moves its running statistics" if live[0] in norms else "drops values"
        finding = self.finding(
            graph,
            f"the model was evaluated in train mode ({told}): {{modules}} {what} in it",
            module=live[0],
            location=origin_of(graph, live[0]),
            evidence={
                "evaluations": run["evaluations"],
                "forwards": run["blind_forwards"],
                "input_gradients": run["probed"],
                "without_backward": run["idle_forwards"],
                "steps": run["steps"],
                "first_step": run["first_evaluation"],
                "layers": len(live),
            },
            help="Call model.eval() before an evaluation, and model.train() after it.",
        )
        yield spread_over(finding, live)

    def _told(self, graph: Graph, run: dict[str, Any]) -> str | None:
        """What was seen, None where it was no evaluation."""
        if evaluations := live_evaluations(graph):
            first = run["first_evaluation"]
            since = f", first before step {first}" if first is not None else ""
            places = "place" if evaluations == 1 else "places"
            return (
                f"{run['blind_forwards']} forwards without gradients in {evaluations} {places} between "
                f"{run['steps']} steps{since}"
            )
        if run["steps"] >= FEWEST_STEPS and 0 < run["idle_steps"] <= OFTEN * (run["steps"] + 1):
            return (
                f"{run['idle_forwards']} forwards that no backward follows, between {run['idle_steps']} of "
                f"{run['steps']} steps"
            )
        if run["scored"] >= FEWEST_STEPS:
            return f"{run['scored']} forwards without gradients and no step of training"
        if run["probed"] >= FEWEST_STEPS:
            return f"{run['probed']} forwards for the gradient of their input and no step of training"
        return None
