"""What is counted of the modes in which a watched model runs: by BatchNorm, and from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from normdoctor.probing.passes import running
from normdoctor.probing.study import tensors


@dataclass
class Norm:
    """A BatchNorm, or a module with running statistics of its own, and how often it ran in which mode."""

    path: str
    module: nn.Module
    momentum: float | None
    initially: bool
    training: bool
    train_steps: int = 0
    eval_steps: int = 0
    eval_run: int = 0
    recomputed: int = 0
    penalized: int = 0

    @property
    def moves(self) -> bool:
        """Would a forward in train mode move running statistics?"""
        return bool(running(self.module)) and getattr(self.module, "momentum", None) != 0

    def figures(self) -> dict[str, Any]:
        """What is known of it, as plain data."""
        return {
            "module": self.path,
            "kind": "batch_norm",
            "role": "norm",
            "call": 0,
            "trainable": any(one.requires_grad for one in self.module.parameters(recurse=False)),
            "moves": self.moves,
            "initially": self.initially,
            "training": self.training,
            "train_steps": self.train_steps,
            "eval_steps": self.eval_steps,
            "eval_run": self.eval_run,
            "recomputed": self.recomputed,
            "penalized": self.penalized,
        }


class Reached:
    """On the outputs of a forward: does a backward come through one of them?"""

    def __init__(self, output: Any) -> None:
        made = [one.grad_fn for one in tensors(output) if one.grad_fn is not None]
        self.done = not made  # of other outputs nothing is known
        for one in made:
            one.register_prehook(self)

    def __call__(self, gradients: Any) -> None:
        """One does."""
        self.done = True


@dataclass
class Gap:
    """What was seen since the last step.

    `blind` counts forwards in train mode without gradients, `probed` those with gradients of an input that
    is no result of anything: what an attack or a saliency map asks for. `again`: a tensor came a second time.
    `evaluated`: the model ran without gradients in eval mode. `outputs` are those of forwards in train mode
    with gradients.
    """

    forwards: int = 0
    eval_forwards: int = 0
    blind: int = 0
    whole: int = 0
    probed: int = 0
    again: bool = False
    expands: bool = False
    inference: bool = False
    same: bool = False
    recalibrates: bool = False
    repeated: bool = False
    evaluated: bool = False
    outputs: list[Reached] = field(default_factory=list)
    modes: dict[int, bool] = field(default_factory=dict)
    recomputed: set[int] = field(default_factory=set)
    penalized: set[int] = field(default_factory=set)
    last_norm: int = -1

    @property
    def idle(self) -> int:
        """Forwards whose gradients nobody asked for; a single one may be a look, or a step that was left."""
        count = sum(not one.done for one in self.outputs)
        return count if count > 1 else 0

    @property
    def evaluates(self) -> bool:
        """May what ran without gradients have been an evaluation?

        A single pass of a generator, or of a part of the model, is none: it makes what others train on.
        """
        alone = self.blind == 1 and (self.expands or not self.whole)
        return self.blind > 0 and not self.recalibrates and not alone
