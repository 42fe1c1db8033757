"""ND608: non-finite."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites
from normdoctor.rules.training import bad_losses, first_bad, origin_of, trained

#: The largest number of a format.
_LARGEST = {"float16": 65504.0, "bfloat16": 3.39e38, "float32": 3.4e38}
_GROW = frozenset("pow mul sum mean var std matmul linear einsum addmm norm".split())


class NonFinite(base.Rule):
    """The first operation that makes NaN or infinity out of finite numbers.

    ## What it does
    Runs the model on the batches of `data=` and looks at every tensor. An operation is named when what it
    reads is finite and what it returns is not, and when that does harm: NaN that reaches an output of the
    model; infinity that reaches an output or becomes NaN further on; a sum or a product that was too large
    for its format, also where a later division hides it. Minus infinity that was put in is a mask and says
    nothing, unless a row is masked altogether: its softmax is 0 / 0.

    In a watched training only the outputs of layers, norms and activations are seen, and the first of them
    that holds a bad value is named, unless the gradient of an earlier step (ND807) explains it. Where all of
    them are finite and the loss is not, again and again, that is said.

    ## Why is this bad?
    One NaN in an output makes the loss NaN, and one step later every weight. In half precision the largest
    number is 65504: the square of anything above 255 is infinity, and an eps of 1e-12 is zero. A norm whose
    mean of squares is infinite returns zeros and hides it.

    ## Example
    An RMSNorm by hand that squares in half precision:

    ```python bad
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(16, 16).half()

        def forward(self, x):
            x = self.inner(x)
            square = x.pow(2).mean(-1, keepdim=True)  # ND608
            return x * torch.rsqrt(square + 1e-6)

    model = Net()
    inputs = torch.randn(8, 16).half()
    data = [2000 * torch.randn(8, 16).half()]
    ```

    ```python good
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(16, 16).half()

        def forward(self, x):
            x = self.inner(x).float()
            square = x.pow(2).mean(-1, keepdim=True)
            return (x * torch.rsqrt(square + 1e-6)).half()

    model = Net()
    inputs = torch.randn(8, 16).half()
    data = [2000 * torch.randn(8, 16).half()]
    ```

    ## When to ignore
    When the outputs are meant to be infinite: log-probabilities of impossible events, masked scores.

    ## References
    - https://github.com/pytorch/pytorch/issues/32137 (`F.normalize` of zero rows in half precision)
    - https://github.com/pytorch/pytorch/pull/133085 (squares in an RMSNorm in half precision)
    - IEEE 754-2019, Standard for Floating-Point Arithmetic
    """

    code = "ND608"
    name = "non-finite"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"finite"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """In a watch, how many losses that are not finite are too many, and what share of all."""

        losses: int = 3
        share: float = 0.05

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Name every operation that made bad values of good ones; in a watch, the first site that has any."""
        made = sorted(sites(graph, need="finite"), key=lambda site: int(site.figures["order"]))
        for site in made:
            yield self._made(graph, site)
        if (graph.facts.measurements or {}).get("run", {}).get("source") == "watch":
            bad = [site for site in sites(graph) if site.figures.get("bad_batches")]
            first = min(bad, key=lambda site: int(site.figures["order"])) if bad else None
            if first is not None and not _follows(graph, first):
                yield self._seen(graph, first)
            elif first is None and first_bad(trained(graph)) is None:
                yield from self._in_loss(graph)

    def _made(self, graph: Graph, site: Site) -> Finding:
        figures = site.figures
        where = {
            "NaN": f", which becomes NaN at `{figures.get('becomes_nan_at')}`",
            "output": ", which reaches the model's output",
            "lost": ", which later steps hide",
        }[figures["goes"]]
        return self.finding(
            graph,
            f"`{site.kind or 'an operation'}` in {{modules}} makes {figures['made']} out of finite numbers "
            f"(largest {figures['largest']:.3g}) in {figures['dtype']}{where}, "
            f"in {figures['bad_batches']} of {site.of_batches}",
            node=site.node(graph),
            module=site.module,
            evidence={
                "made": figures["made"],
                "operation": site.kind,
                "dtype": figures["dtype"],
                "largest_input": figures["largest"],
                "bad_batches": figures["bad_batches"],
                "batches": site.batches,
                "source": site.source,
            },
            help=_help(site),
        )

    def _in_loss(self, graph: Graph) -> Iterator[Finding]:
        losses = bad_losses(graph)
        least = self.options.losses
        if losses is None or losses["not_finite"] < max(least, self.options.share * losses["steps"]):
            return
        bad, steps, first = losses["not_finite"], losses["steps"], losses.get("first")
        yield self.finding(
            graph,
            f"the loss was not finite in {bad} of {steps} steps"
            + (f", first in step {first}" if first is not None else "")
            + ", and the layers, norms and activations that were seen are",
            module="",
            location=origin_of(graph, ""),
            evidence={"not_finite": bad, "steps": steps, "first": first},
            help="Look behind the last layer and at the loss: a logarithm or a division at zero.",
        )

    def _seen(self, graph: Graph, site: Site) -> Finding:
        bad = int(site.figures["bad_batches"])
        return self.finding(
            graph,
            f"`{site.kind}` in {{modules}} is the first whose values are not finite, "
            f"in {bad} of {site.of_batches}",
            node=site.node(graph),
            module=site.module,
            evidence={
                "operation": site.kind,
                "bad_batches": bad,
                "batches": site.batches,
                "source": site.source,
            },
            help="Check the model with these batches as data= to see which operation makes them.",
        )


def _follows(graph: Graph, site: Site) -> bool:
    """Is it that an earlier gradient (ND807) made the weights bad, so that all is bad that they make?"""
    parameters = trained(graph)
    look = first_bad(parameters)
    if look is None:
        return False
    spoilt = any(one.module == site.module and one.figures["spoilt"] for one in trained(graph, "updates"))
    looks = len(parameters[0].figures["norms"])
    return spoilt or int(site.figures["bad_batches"]) < looks - look


def _help(site: Site) -> str:
    """What to do about it."""
    half = site.figures["dtype"] in ("float16", "bfloat16")
    if site.kind == "normalize" or (site.kind == "div" and half):
        return "Give an eps that the format can hold (1e-6 in float16), or divide in float32."
    if half and site.kind in _GROW:
        most = _LARGEST[site.figures["dtype"]]
        return f"Compute it in float32 (`x.float()`): the largest number of the format is {most:.5g}."
    if site.kind == "softmax":
        return "A row that is masked altogether has no softmax: keep one entry, or mask with a finite number."
    if site.kind in ("log", "sqrt", "rsqrt", "pow", "div", "acos", "asin"):
        return "Clamp its argument, or add an eps, so that zero and rounding errors stay inside its domain."
    return "Keep its input in the range of the format: normalize before it, clamp it, or compute in float32."
