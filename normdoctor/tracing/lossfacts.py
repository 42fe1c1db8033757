"""Losses in the recorded graph: torch's own, and those that are written by hand after a logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from msgspec import structs

from normdoctor.facts import LossFact, Node
from normdoctor.tracing.meta import tensors
from normdoctor.tracing.recorder import LOSS_SCOPE

#: What a logarithm of probabilities makes the arithmetic after it, in a loss that is written by hand.
_BY_HAND = {
    "log_softmax": "cross_entropy",
    "logsumexp": "cross_entropy",
    "logsigmoid": "binary_cross_entropy_with_logits",
}
#: Losses that take logarithms of probabilities: the logarithm in front of them is no loss of its own.
_TAKE_LOGS = frozenset({"nll_loss", "kl_div", "ctc_loss"})


def loss_facts(nodes: Sequence[Node]) -> tuple[LossFact, ...]:
    """Every loss of the graph.

    `-(log_softmax(x) * onehot).sum()` in a loss that was given is a cross entropy of x.
    """
    readers: dict[int, set[str]] = {}
    for node in nodes:
        for source in node.inputs:
            readers.setdefault(source, set()).add(node.kind)
    found = []
    for node in nodes:
        if node.role == "loss" and node.inputs:
            found.append(_fact(node, node.kind))
        elif (
            node.scope.startswith(LOSS_SCOPE)
            and node.kind in _BY_HAND
            and node.inputs
            and not _TAKE_LOGS & readers.get(node.index, set())
        ):
            found.append(_fact(node, _BY_HAND[node.kind]))
    return tuple(found)


def _fact(node: Node, kind: str) -> LossFact:
    config = node.config
    if node.role != "loss":
        dim = node.config.get("dim")
        config = {"by_hand": node.kind, "dim": dim[0] if isinstance(dim, list) and len(dim) == 1 else dim}
    return LossFact(kind=kind, node=node.inputs[0], certain=True, location=node.location, config=config)


def with_labels(losses: Sequence[LossFact], labels: Any) -> tuple[LossFact, ...]:
    """Add the range of the labels that the user gave, where one of their tensors is a loss's target."""
    ranges: dict[tuple[tuple[int, ...], str], list[tuple[float, float]]] = {}
    for tensor in tensors(labels):
        if tensor.numel() and tensor.device.type != "meta" and tensor.is_floating_point():
            low, high = (float(value) for value in torch.aminmax(tensor.detach()))
            key = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            ranges.setdefault(key, []).append((low, high))
    found = []
    for loss in losses:
        known = ranges.get((tuple(loss.config.get("target_shape", ())), loss.config.get("target_dtype", "")))
        if known is not None and len(known) == 1:
            bounds = {"target_min": known[0][0], "target_max": known[0][1]}
            found.append(structs.replace(loss, config=loss.config | bounds))
        else:
            found.append(loss)
    return tuple(found)
