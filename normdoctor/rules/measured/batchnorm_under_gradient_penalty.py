"""ND808: batchnorm-under-gradient-penalty."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import norm_modes, origin_of


class BatchnormUnderGradientPenalty(base.Rule):
    """A penalty on the gradient by the input, through a BatchNorm in train mode.

    ## What it does
    Says, in a watched training, which BatchNorms in train mode lie on the way of a double backward: the model
    runs on an input that requires gradients, and a backward with `create_graph=True` passes the layer.

    ## Why is this bad?
    A gradient penalty (WGAN-GP, R1, DRAGAN) bounds the slope of the output of each sample by that
    sample's own input. BatchNorm in train mode makes each output depend on all samples of the batch: what is
    penalized is no longer the slope of one sample.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),  # ND808
        nn.LeakyReLU(0.2),
        nn.Linear(16, 1),
    )


    def train(watch):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        for _ in range(8):
            x = torch.randn(32, 8, requires_grad=True)
            score = model(x)
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
            loss = score.mean() + 10 * (slope.norm(dim=1) - 1).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


    def train(watch):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        for _ in range(8):
            x = torch.randn(32, 8, requires_grad=True)
            score = model(x)
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
            loss = score.mean() + 10 * (slope.norm(dim=1) - 1).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When the slope of the mean over a batch is what the penalty is about.

    ## References
    - Gulrajani et al., Improved Training of Wasserstein GANs, https://arxiv.org/abs/1704.00028 (section 4: no
      batch normalization in the critic)
    """

    code = "ND808"
    name = "batchnorm-under-gradient-penalty"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"modes"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least number of steps."""

        steps: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every BatchNorm."""
        for figures in norm_modes(graph):
            if figures["penalized"] >= self.options.steps:
                yield self.finding(
                    graph,
                    f"a gradient penalty runs through {{modules}} in train mode (double backward in "
                    f"{figures['penalized']} of {figures['train_steps']} steps): its output mixes "
                    "the samples of a batch, the penalty is on each by itself",
                    module=figures["module"],
                    location=origin_of(graph, figures["module"]),
                    evidence={"penalized": figures["penalized"], "steps": figures["train_steps"]},
                    help="Use LayerNorm, InstanceNorm or no norm in a model under a gradient penalty.",
                )
