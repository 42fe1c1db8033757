"""ND116: a norm over other axes than the features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.axes import POSITIONS, shown, words
from normdoctor.rules.base import Rule

_LAST = frozenset({"layer_norm", "rms_norm"})
_SECOND = frozenset({"batch_norm", "group_norm"})
_FEATURES = frozenset({"channel", "heads"})


class _Fault(NamedTuple):
    text: str
    severity: Severity
    confidence: Confidence
    axes: tuple[int, ...]


class NormWrongAxis(Rule):
    """A norm over other axes than the features.

    ## What it does
    Finds three things, where every axis that matters is known (`normdoctor show --axes` prints them):

    - BatchNorm or GroupNorm on (batch, time, channel) or (batch, height, width, channel): they take
      axis 1 for the channels, and the features are elsewhere (error);
    - LayerNorm or RMSNorm, also written by hand, over axes without the features, such as the width of
      (batch, channel, height, width) (error; a warning where it takes all positions and leaves each
      channel to itself, which is an InstanceNorm);
    - LayerNorm over the features and the positions of a sequence together, (time, channel) (warning,
      confidence medium).

    ## Why is this bad?
    BatchNorm1d on (batch, time, channel) keeps a mean and a variance for each time step over all
    features: it runs only because the two lengths are equal, or because it was built with the length
    of the sequence, and then the model takes no other length. LayerNorm over the width of a feature
    map removes the mean of each row of pixels. LayerNorm over time and features together lets each
    position see all others, those to come included, and has parameters for each position.

    ## Example
    ```python bad
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 20, batch_first=True)
            self.norm = nn.BatchNorm1d(20)  # ND116
            self.out = nn.Linear(20, 2)

        def forward(self, x):
            x, _ = self.lstm(x)
            return self.out(self.norm(x))

    model = Net()
    inputs = torch.randn(4, 20, 8)
    ```
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.LayerNorm(16),  # ND116
        nn.ReLU(),
    )
    inputs = torch.randn(2, 3, 16, 16)
    ```
    ```python good
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 20, batch_first=True)
            self.norm = nn.BatchNorm1d(20)
            self.out = nn.Linear(20, 2)

        def forward(self, x):
            x, _ = self.lstm(x)
            return self.out(self.norm(x.transpose(1, 2)).transpose(1, 2))

    model = Net()
    inputs = torch.randn(4, 20, 8)
    ```
    ```python good
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.norm = nn.LayerNorm(16)
            self.map_norm = nn.LayerNorm([16, 16, 16])

        def forward(self, x):
            x = self.map_norm(self.conv(x))
            return self.norm(x.permute(0, 2, 3, 1))

    model = Block()
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ## When to ignore
    LayerNorm over channel, height and width of a feature map is not reported, nor LayerNorm over all of
    a sequence whose channels stand in front of the time (the output of Conv1d). A norm over the nodes
    or agents of a set, on purpose, is a case to ignore.

    ## References
    - xieyulai/LSTM-for-Human-Activity-Recognition...#2: BatchNorm1d on (batch, time, features).
    - reczoo/FuxiCTR#23: LayerNorm over fields and embedding together.
    - Ba, Kiros and Hinton 2016, Layer normalization, arXiv:1607.06450.
    """

    code = "ND116"
    name = "norm-wrong-axis"
    category = "placement"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each norm whose axes are known to be others than it should take."""
        for norm in graph.norms:
            if norm.input is None or len(norm.input.axes) != len(norm.input.shape):
                continue
            fault = _second(norm) if norm.kind in _SECOND else _last(norm)
            if fault is None or _filter_response(graph, norm):
                continue
            before = norm.input
            node = norm.output
            location = norm.handwritten.location if norm.handwritten is not None else None
            yield self.finding(
                graph,
                f"{norm.kind} {{modules}} " + fault.text + f" in {shown(before.axes, before.shape)}",
                node=node,
                module=norm.handwritten.module if norm.handwritten is not None else None,
                location=location,
                severity=fault.severity,
                confidence=fault.confidence,
                evidence={
                    "shape": list(before.shape),
                    "axes": list(before.axes),
                    "normalized": list(fault.axes),
                },
            )


def _features(axes: tuple[str, ...]) -> list[int]:
    return [place for place, label in enumerate(axes) if words(label) & _FEATURES]


def _second(norm: Norm) -> _Fault | None:
    """A norm that takes axis 1 for the channels."""
    before = norm.input
    if before is None or norm.handwritten is not None or len(before.shape) < 3:
        return None
    axes, shape = before.axes, before.shape
    label = words(axes[1])
    features = [place for place in _features(axes) if axes[place] == "channel"]
    if not label or label & _FEATURES or not features or shape[1] == 1:
        return None
    return _Fault(
        f"takes axis 1, {axes[1]}, for the channels; the features are axis {features[-1]}",
        Severity.ERROR,
        Confidence.HIGH,
        (1,),
    )


def _filter_response(graph: Graph, norm: Norm) -> bool:
    """Filter response normalization: the root mean square of all positions, one scale a channel."""
    found, before = norm.handwritten, norm.input
    if found is None or before is None or norm.kind != "rms_norm":
        return False
    everywhere = {at for at, label in enumerate(before.axes) if label in POSITIONS}
    if set(_reduced(norm)) != everywhere or before.axes[1:2] != ("channel",):
        return False
    sizes = [graph.parameters[name].tensor.size for name in found.scales if name in graph.parameters]
    return bool(sizes) and all(size == before.shape[1] for size in sizes)


def _last(norm: Norm) -> _Fault | None:
    """A norm over the last axes, or over those that code of the user's reduces."""
    before = norm.input
    reduced = _reduced(norm)
    if before is None or not reduced or norm.kind not in _LAST:
        return None
    axes, shape = before.axes, before.shape
    if len(shape) < 3 or any(not axes[at] and shape[at] != 1 for at in reduced):
        return None
    inside = [words(axes[at]) for at in reduced]
    features = [at for at in _features(axes) if axes[at] == "channel" and shape[at] > 1]
    if any("batch" in one for one in inside) or not any(inside):
        return None
    if not any(one & _FEATURES for one in inside):
        return _positions_only(axes, shape, reduced, features)
    positions = [at for at in reduced if axes[at] in POSITIONS and shape[at] > 1]
    last = words(axes[reduced[-1]]) & _FEATURES
    if not positions or not last or (len(shape) > 3 and "time" not in {axes[at] for at in positions}):
        return None
    return _Fault(
        f"normalizes over {' and '.join(axes[at] for at in reduced)} together",
        Severity.WARNING,
        Confidence.MEDIUM,
        reduced,
    )


def _positions_only(
    axes: tuple[str, ...], shape: tuple[int, ...], reduced: tuple[int, ...], features: list[int]
) -> _Fault | None:
    if not features:
        return None
    everywhere = {at for at, label in enumerate(axes) if label in POSITIONS} <= set(reduced)
    accident = any(shape[at] == shape[features[-1]] for at in reduced)
    certain = accident or not everywhere
    return _Fault(
        f"normalizes over {' and '.join(axes[at] or '?' for at in reduced)}, not over the features "
        f"(axis {features[-1]})",
        Severity.ERROR if certain else Severity.WARNING,
        Confidence.HIGH if certain else Confidence.MEDIUM,
        reduced,
    )


def _reduced(norm: Norm) -> tuple[int, ...]:
    """The axes of the input that mean and variance are taken over, counted from 0, in order."""
    if norm.input is None:
        return ()
    rank = len(norm.input.shape)
    if norm.handwritten is not None:
        return tuple(sorted(axis % rank for axis in norm.handwritten.reduced)) if rank else ()
    given = norm.output.config.get("normalized_shape")
    count = len(given) if isinstance(given, list | tuple) else 1
    return tuple(range(rank - count, rank)) if 0 < count <= rank else ()
