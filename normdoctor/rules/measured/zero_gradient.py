"""ND803: zero-gradient."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.layers import BATCH_NORMS
from normdoctor.rules.training import (
    FEWEST_STEPS,
    Trained,
    norm_modes,
    origin_of,
    place_of,
    spread_over,
    trained,
    underflows,
)


class ZeroGradient(base.Rule):
    """A parameter that is to be trained and whose gradient is always exactly zero.

    ## What it does
    Says, in a watched training, which weights had a gradient of exactly zero in every look, and which
    BatchNorms run although their parameters never get a gradient: their forward does not use them. Biases
    and scales count where all parameters of their layer are without gradient. Where an optimizer makes its
    steps and no parameter has a gradient at all, that is one finding: the backward is missing, does not reach
    the model, or is followed by `zero_grad()`.

    Silent are gradients that fp16 rounds to zero (ND806), parameters that are in no optimizer, layers that
    did not run in every look (experts that were not chosen), and gradients that are zero at first only, as
    those of a branch behind a scale that starts at zero.

    ## Why is this bad?
    The layer is not trained, and what stands before it on the same path is not either. Usual causes: a layer
    behind it whose units are all dead, a softmax over an axis of one element, rounding or thresholding, a
    branch that is multiplied by zero, an input that is always zero.

    ## Example
    A softmax over one element is constant:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16),  # ND803
        nn.ReLU(),
        nn.Linear(16, 1),  # ND803
        nn.Softmax(dim=1),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 8)
            loss = nn.functional.mse_loss(model(x), (x.sum(1, keepdim=True) > 0).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 8)
            loss = nn.functional.mse_loss(model(x), (x.sum(1, keepdim=True) > 0).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When a part is switched off on purpose for a while. Better leave it out of the optimizer.

    ## References
    - feinanshan/FANet issue 5: a BatchNorm whose forward returns the activation of its input.
    - PyTorch documentation, DistributedDataParallel: `find_unused_parameters`.
    """

    code = "ND803"
    name = "zero-gradient"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"gradients", "modes"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least evidence."""

        looks: int = 5

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every layer with trainable parameters."""
        if underflows(graph):
            return  # ND806: the zeros were rounded
        steps = [one for one in trained(graph) if one.figures["trainable"] and one.figures["optimized"]]
        if steps and all(one.figures["seen"] == 0 and one.looks >= FEWEST_STEPS for one in steps):
            yield self._nothing(graph, steps)
            return
        layers: dict[str, list[Trained]] = {}
        for one in trained(graph):
            if one.trains and one.looks >= self.options.looks and "expert" not in one.name.lower():
                layers.setdefault(one.module, []).append(one)
        zero = {path: found for path, of in layers.items() if (found := self._zero(of))}
        # The backward comes from the output: what it reaches first is nearest to the cause.
        nearest = list(zero)[-1] if zero else ""
        for path, found in zero.items():
            names = " and ".join(f"`{one.name}`" for one in found)
            whole = len(zero) > 1 and path == nearest
            yield self.finding(
                graph,
                f"the gradient of {names} was exactly zero in all {found[0].looks} looks"
                + (", as it was in all that stands before it on the same path" if whole else ""),
                module=path,
                location=place_of(graph, found[0]),
                evidence={
                    "looks": found[0].looks,
                    "parameters": [one.name for one in found],
                    "layers": len(zero),
                    "nearest_to_output": nearest,
                },
                help="Look at what stands between this layer and the loss.",
            )
        yield from self._unused_norms(graph, layers)

    def _nothing(self, graph: Graph, steps: list[Trained]) -> Finding:
        had = any(one.figures["place"] is not None for one in steps)
        return self.finding(
            graph,
            f"an optimizer made {steps[0].looks} steps with {len(steps)} parameters of the model, and none "
            "of them had a gradient: "
            + ("it was there after the backward and gone at the step" if had else "no backward reached them"),
            module="",
            location=origin_of(graph, ""),
            evidence={"looks": steps[0].looks, "parameters": len(steps), "backward": had},
            help="Call zero_grad() before the backward or after the step, not between them."
            if had
            else "Call loss.backward() before the step, on a loss that is computed from the model's output "
            "without no_grad(), detach(), item() or numpy().",
        )

    def _zero(self, layer: list[Trained]) -> list[Trained]:
        """The parameters of a layer that are without gradient, where that says something."""
        silent = [one for one in layer if one.figures["zero"] == one.looks]
        return silent if len(silent) == len(layer) else [one for one in silent if one.is_matrix]

    def _unused_norms(self, graph: Graph, layers: dict[str, list[Trained]]) -> Iterator[Finding]:
        ran = {figures["module"] for figures in norm_modes(graph) if figures["train_steps"]}
        unused = [
            of[0]
            for path, of in layers.items()
            if path in ran
            and all(one.figures["seen"] == 0 for one in of)
            and (path not in graph.modules or graph.modules[path].base in BATCH_NORMS)
        ]
        if not unused or any(one.figures["optimized"] is None for one in unused):
            return
        first = unused[0]
        finding = self.finding(
            graph,
            f"the parameters of {{modules}} never got a gradient in {first.looks} looks although it runs and "
            "an optimizer steps with them: its forward does not use them, or nothing uses its result",
            module=first.module,
            location=place_of(graph, first),
            confidence=Confidence.MEDIUM,
            evidence={"looks": first.looks, "layers": len(unused)},
            help="Let its forward call super().forward(x), or take it out.",
        )
        yield spread_over(finding, [one.module for one in unused])
