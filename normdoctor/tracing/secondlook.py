"""What one recording cannot tell of a call: whether it follows the model's mode, whether its result is lost.

The first takes a recording in eval mode, made only where some call asks for it; the second the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from normdoctor.errors import TraceError
from normdoctor.facts import Location, ModuleFact, Node
from normdoctor.loading.expressions import dropped, stated

#: The position of `training` in torch.nn.functional's signatures.
_TRAINING = {"batch_norm": 5, "instance_norm": 5, "rrelu": 3}
_DROPOUT_TRAINING = 2


def looked_again(
    nodes: tuple[Node, ...],
    modules: Sequence[ModuleFact],
    in_eval: Callable[[], tuple[Node, ...]] | None,
) -> tuple[Node, ...]:
    """The nodes with what a second look says, in their `config`.

    `active_in_eval`: a call whose mode is an argument (`F.dropout`, `F.batch_norm`) is in train mode
    although the model is not. `training_stated`: how the source gives that argument (see
    `expressions.stated`). `dropped`: how the result gets lost (see `expressions.dropped`).

    Args:
        nodes: The recording.
        modules: All modules of it.
        in_eval: Records the same forward in eval mode; None where the nodes are that recording.
    """
    built = frozenset(module.path for module in modules if module.container == "forward")
    notes: dict[int, dict[str, Any]] = {}
    words = {node.index: _stated(node) for node in nodes if _active(node, built)}
    suspects = [index for index, word in words.items() if word != "mode"]
    if suspects:
        active = _active_in_eval(nodes, built, in_eval)
        for index in suspects:
            notes[index] = {"training_stated": words[index]}
            if (found := active.get(index)) is not None:
                notes[index]["active_in_eval"] = found
    read = {source for node in nodes for source in node.inputs}
    for node in nodes:
        loose = node.role in ("norm", "activation", "softmax", "dropout") and node.index not in read
        if loose and node.mutates is None and (how := dropped(node.location)) is not None:
            notes.setdefault(node.index, {})["dropped"] = how
    return tuple(
        msgspec.structs.replace(node, config=node.config | notes[node.index]) if node.index in notes else node
        for node in nodes
    )


def _active(node: Node, built: frozenset[str]) -> bool:
    """Does the call run in train mode, with a mode of its own that no registered module gives it?"""
    if node.module is not None and node.module not in built:
        return False
    config = node.config
    if node.role == "dropout":
        return bool(config.get("p", 0.5)) and config.get("training", True) is True
    if node.kind == "scaled_dot_product_attention":
        return bool(config.get("dropout_p"))
    if node.kind == "batch_norm":
        return bool(config.get("track_running_stats")) and config.get("training") is True
    return False


def _stated(node: Node) -> str | None:
    if node.module is not None:
        return None
    if node.kind == "scaled_dot_product_attention":
        return stated(node.location, node.kind, "dropout_p", 4)
    position = _TRAINING.get(node.kind, _DROPOUT_TRAINING)
    return stated(node.location, node.kind, "training", position)


def _active_in_eval(
    nodes: tuple[Node, ...], built: frozenset[str], in_eval: Callable[[], tuple[Node, ...]] | None
) -> dict[int, bool]:
    """Which calls run in train mode in eval mode too, by index; those that cannot be told are left out."""
    again = nodes
    if in_eval is not None:
        try:
            again = in_eval()
        except TraceError:
            return {}
    there = _by_place(again)
    found: dict[int, bool] = {}
    for key, calls in _by_place(nodes).items():
        # Modules that forward builds have the same paths in both recordings.
        flags = [_active(node, built) for node in there.get(key, [])]
        if not any(flags):
            flags = [False] * len(calls)
        if len(flags) == len(calls):
            found |= {node.index: flag for node, flag in zip(calls, flags, strict=True)}
    return found


def _by_place(nodes: tuple[Node, ...]) -> dict[tuple[str, Location | None, str], list[Node]]:
    """Calls by scope, place in the source and kind: several where a helper or a loop makes them."""
    found: dict[tuple[str, Location | None, str], list[Node]] = {}
    for node in nodes:
        found.setdefault((node.module or node.scope, node.location, node.kind), []).append(node)
    return found
