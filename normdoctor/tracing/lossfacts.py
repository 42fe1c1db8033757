"""Losses in the recorded graph: torch's own, and those that are written by hand after a logarithm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from msgspec import structs

from normdoctor.facts import Facts, LossFact, Node
from normdoctor.loading.lossvalues import SourceLoss
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


def with_source_losses(
    facts: Facts, losses: Iterable[SourceLoss], target: str, names: Sequence[str] = ()
) -> Facts:
    """Add the losses that the source applies to this model, unless one was recorded.

    `names` are those of the model's outputs (`output.logits`), in their order.
    """
    if facts.losses or not facts.nodes:
        return facts
    outputs = next((node.inputs for node in reversed(facts.nodes) if node.op == "output"), ())
    names = names if len(names) == len(outputs) else ()
    name = target.rpartition(":")[2].split("(")[0]
    nodes = list(facts.nodes)
    found: list[LossFact] = []
    for loss in losses:
        if loss.model is not None and name and loss.model not in (name, target):
            continue
        position = _position(loss, names)
        if position is None or position >= len(outputs):
            continue
        node = _applied(loss, nodes, outputs[position])
        told = loss.key or ("" if loss.argument is None else f"[{loss.argument}]")
        found.append(
            LossFact(
                kind=loss.kind,
                node=node,
                certain=False,
                location=loss.location,
                config=dict(loss.config),
                output=told,
                path=loss.path,
            )
        )
    return structs.replace(facts, nodes=tuple(nodes), losses=tuple(found))


def _position(loss: SourceLoss, names: Sequence[str]) -> int | None:
    """Which output the loss takes, counted as the tensors of the result are; None where it is not there."""
    if loss.key is not None:
        return next((place for place, name in enumerate(names) if name.endswith(f".{loss.key}")), None)
    if loss.argument is None:
        return 0
    prefix = f"output.{loss.argument}"
    inside = (place for place, name in enumerate(names) if f"{name}.".startswith(f"{prefix}."))
    return next(inside, loss.argument)


def _applied(loss: SourceLoss, nodes: list[Node], node: int) -> int:
    """Append what the source applies to the output in front of the loss; returns the last node."""
    for place, kind in enumerate(loss.through):
        before = nodes[node]
        dim = loss.dims[place] if place < len(loss.dims) else None
        dim = 1 if dim is None and len(before.shape) == 2 else dim
        node = len(nodes)
        nodes.append(
            Node(
                index=node,
                name=f"{kind}_of_output",
                op="call_function",
                role="softmax" if "softmax" in kind else "activation",
                kind=kind,
                scope=LOSS_SCOPE,
                inputs=(before.index,),
                outputs=before.outputs,
                config={"dim": dim} if "softmax" in kind else {},
                location=loss.location,
            )
        )
    return node
