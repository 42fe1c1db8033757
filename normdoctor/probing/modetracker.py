"""In which modes a watched model runs: counted in plain Python at every step, at next to no cost.

Nothing here reads values: flags, call orders and identities of tensors tell what is needed. The one
thing that asks for values, whether two batches of a step are equal, is compared on the device.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.hooks import RemovableHandle

from normdoctor.probing.calls import version_of
from normdoctor.probing.hooks import Hook, in_backward
from normdoctor.probing.modecounts import Gap, Norm, Reached
from normdoctor.probing.passes import expands, running
from normdoctor.probing.prints import Prints

#: Called with the arguments of a forward that gradients may flow through.
OnForward = Callable[[tuple[Any, ...], dict[str, Any]], None]

#: The key of the figures of the whole model; no path of a module.
MODEL = ":model"

#: How many forwards of one step are told apart, and how many paths are kept as examples.
_MOST_FORWARDS = 64
_MOST_PATHS = 64


class ModeTracker:
    """Follows the forwards of `model`; need "modes".

    Hooks stay on the model, its wrapper and its BatchNorms for the whole watch. Code that `torch.compile`
    made before runs none of them: then only the observed steps, which run eagerly, are seen.
    """

    need = "modes"

    def __init__(self, model: nn.Module, outer: nn.Module, on_forward: OnForward) -> None:
        self.model = model
        self.roots = list({id(one): one for one in (outer, model)}.values())
        self.on_forward = on_forward
        self.paused = self.observed = self.half = False
        self.prints = Prints()
        self.norms: list[Norm] = []
        self.dropouts: list[tuple[str, _DropoutNd]] = []
        self.layers: list[nn.Module] = []
        self.steps = self.train_steps = self.eval_steps = self.eval_run = 0
        self.lapses = self.lapsed = self.idle_steps = self.idle_forwards = 0
        self._lapse = False
        self.blind_steps = self.blind_forwards = self.evaluations = 0
        self.same = self.inference = self.repeated = 0
        self.forwards: Counter[int] = Counter()
        self.first_evaluation: int | None = None
        self.live: list[str] = []
        self.initially = model.training
        self._gap = Gap()
        self._depth = 0
        self._grad, self._penalty = True, False
        self._blind_inputs: list[weakref.ref[Tensor]] = []
        self._earlier_inputs: list[weakref.ref[Tensor]] = []
        self._batches: list[tuple[weakref.ref[Tensor], int]] = []
        self._thread: int | None = None
        self._handles: list[RemovableHandle] = []

    @property
    def seen(self) -> bool:
        """Did the model run at all?"""
        return bool(self.steps or self._gap.forwards or self._gap.blind)

    @property
    def compiled(self) -> bool:
        """Is the model compiled in place, so that its hooks are a part of the compiled code?"""
        return any(getattr(one, "_compiled_call_impl", None) is not None for one in self.model.modules())

    def attach(self) -> None:
        """Put the hooks on."""
        modules = list(self.model.named_modules())
        self.norms = [
            Norm(path, one, getattr(one, "momentum", None), one.training, one.training)
            for path, one in modules
            if isinstance(one, _BatchNorm) or running(one)
        ]
        self.dropouts = [(path, one) for path, one in modules if isinstance(one, _DropoutNd) and one.p > 0]
        self.layers = [
            one for path, one in modules if path and next(one.parameters(recurse=False), None) is not None
        ]
        self.initially = not self._evaluating(live=self._live())
        for root in self.roots:
            self._handles += [
                root.register_forward_pre_hook(Hook(self._enter), with_kwargs=True),
                root.register_forward_hook(Hook(self._exit), always_call=True),
            ]
        for place, norm in enumerate(self.norms):
            if norm.module not in self.roots and not isinstance(norm.module, torch.jit.ScriptModule):
                # Always: a recomputation is stopped by an exception once it has what it needs.
                hook = Hook(self._ran, place)
                self._handles.append(norm.module.register_forward_hook(hook, always_call=True))

    def detach(self) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()
        self._depth = 0

    def step(self) -> None:
        """A step is over: sum up what was seen since the last one."""
        gap, self._gap = self._gap, Gap()
        self.steps += 1
        self._depth = 0
        self._close(gap)
        self._batches.clear()
        self.prints.clear()
        if not gap.forwards:
            return
        self.forwards[min(gap.forwards, _MOST_FORWARDS)] += 1
        self.repeated += gap.repeated
        in_eval = gap.eval_forwards == gap.forwards
        self.eval_steps += in_eval
        self.train_steps += not in_eval
        self._count_run(gap, in_eval=in_eval)
        for place, training in gap.modes.items():
            norm = self.norms[place]
            norm.training = training
            norm.train_steps += training
            norm.eval_steps += not training
            norm.eval_run = 0 if training else norm.eval_run + 1
        for place in gap.recomputed:
            self.norms[place].recomputed += 1
        for place in gap.penalized:
            self.norms[place].penalized += 1

    def _count_run(self, gap: Gap, *, in_eval: bool) -> None:
        """Count steps in eval mode in a row. A lapse begins with an evaluation and ends with train mode."""
        if in_eval and not self.eval_run:
            self._lapse = gap.evaluated and self.train_steps > 0
        elif not in_eval and self.eval_run and self._lapse:
            self.lapses += 1
            self.lapsed += self.eval_run
        self.eval_run = self.eval_run + 1 if in_eval else 0

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""
        return self.prints.tensors()

    def read(self, values: Sequence[Tensor], *, updated: bool = False) -> dict[str, Any]:
        """Figures of the model (`MODEL`; did an optimizer step with it?) and of each BatchNorm, by path."""
        gap = self._gap  # after the last step, or between two
        model = {
            "module": "",
            "kind": "model",
            "role": "mode",
            "call": 0,
            "steps": self.steps,
            "forwards": {str(count): steps for count, steps in sorted(self.forwards.items())},
            "initially": self.initially,
            "train_steps": self.train_steps,
            "eval_steps": self.eval_steps,
            "eval_run": self.eval_run,
            "lapses": self.lapses,
            "lapsed": self.lapsed,
            "dropouts": [path for path, _ in self.dropouts[:_MOST_PATHS]],
            "blind_steps": self.blind_steps + (gap.blind > 0),
            "blind_forwards": self.blind_forwards + gap.blind,
            "evaluations": self.evaluations + gap.evaluates,
            "same_inputs": self.same,
            "inference_mode": self.inference + (gap.evaluates and gap.inference and not gap.expands),
            "first_evaluation": self.first_evaluation,
            "live": self.live,
            "scored": self._scored(gap),
            "probed": 0 if self.steps or updated else gap.probed,
            "idle_steps": self.idle_steps + (gap.idle > 0),
            "idle_forwards": self.idle_forwards + gap.idle,
            "repeated": self.repeated,
            **self.prints.read(values),
        }
        return {MODEL: model} | {norm.path: norm.figures() for norm in self.norms}

    def _scored(self, gap: Gap) -> int:
        """Forwards in train mode without gradients, where nothing else runs: no step, no gradient."""
        if self.steps or gap.forwards or not gap.evaluates or gap.expands:
            return 0
        samples = gap.again and not any(norm.module.training and norm.moves for norm in self.norms)
        return 0 if samples else gap.blind  # Monte Carlo dropout: one batch several times

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._foreign() or in_backward():
            return
        self._depth += 1
        if self._depth > 1:
            return
        self._grad = torch.is_grad_enabled()
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        first = tensors[0] if tensors else None
        gap = self._gap
        gap.last_norm = -1
        live = self._live()
        if live:
            self._note_batch(gap, first)
        if not self._grad:
            self._blind(gap, first, live=live)
            return
        gap.forwards += 1
        gap.eval_forwards += self._evaluating(live=live)
        self._penalty = any(one.requires_grad and one.is_floating_point() for one in tensors)
        if live and self.model.training and any(one.requires_grad and one.is_leaf for one in tensors):
            gap.probed += 1
            self._note_live(gap.probed)
        if self.observed and first is not None:
            kind = first.device.type
            on = kind != "meta" and torch.is_autocast_enabled(kind)
            self.half = self.half or (on and torch.get_autocast_dtype(kind) == torch.float16)
        self.on_forward(args, kwargs)

    def _exit(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._foreign() or in_backward():
            return
        if self._depth == 1 and not self._grad and self._gap.blind and expands(args, output):
            self._gap.expands = True
        if self._depth == 1 and self._grad and self.model.training and not expands(args, output):
            self._note_output(output)
        for place, norm in enumerate(self.norms if self._depth else ()):
            if norm.module is module:
                self._ran(place, module, args, output)
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            self._penalty = False

    def _note_output(self, output: Any) -> None:
        if self._live() and len(self._gap.outputs) < _MOST_FORWARDS:
            self._gap.outputs.append(Reached(output))
            if not self.live:
                self._note_live(1)

    def _ran(self, place: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A BatchNorm has run."""
        if self._foreign():
            return
        norm, gap = self.norms[place], self._gap
        training = norm.module.training
        if in_backward():
            if training and norm.moves:
                gap.recomputed.add(place)
            return
        if self._depth == 0:
            self._ran_alone(place, training=training)
        if self._grad if self._depth else torch.is_grad_enabled():
            gap.modes[place] = gap.modes.get(place, False) or training
        if self._penalty and training and isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(_Penalized(gap.penalized, place))  # type: ignore[no-untyped-call]

    def _ran_alone(self, place: int, *, training: bool) -> None:
        """A part of the model was called by itself: one pass for each time that its norms come round."""
        gap = self._gap
        first, gap.last_norm = place <= gap.last_norm or gap.last_norm < 0, place
        if not first:
            return
        if torch.is_grad_enabled():
            gap.forwards += 1
            gap.eval_forwards += not training
        elif training and self.model.training:
            gap.blind += 1
            self._note_live(gap.blind)
        elif not training:
            gap.recalibrates = gap.recalibrates or gap.blind > 0

    def _blind(self, gap: Gap, first: Tensor | None, *, live: bool) -> None:
        """A forward without gradients."""
        gap.evaluated = gap.evaluated or self._evaluating(live=live)
        if not live or not self.model.training:
            # Train mode without gradients and then eval mode: statistics were recalibrated.
            gap.recalibrates = gap.recalibrates or gap.blind > 0
            return
        gap.blind += 1
        gap.whole += 1
        gap.inference = gap.inference or torch.is_inference_mode_enabled()
        # update_bn and its like set the momentum to None, 0 or 1 while they run.
        gap.recalibrates = gap.recalibrates or any(
            getattr(one.module, "momentum", None) != one.momentum for one in self.norms
        )
        self._note_live(gap.blind)
        if first is None:
            return
        gap.again = gap.again or any(one() is first for one in self._blind_inputs)
        gap.same = gap.same or any(one() is first for one in self._earlier_inputs)
        if len(self._blind_inputs) < 4:
            self._blind_inputs.append(weakref.ref(first))

    def _note_live(self, count: int) -> None:
        if count == 1:
            paths = [norm.path for norm in self.norms if norm.module.training and norm.moves]
            self.live = (paths or [path for path, one in self.dropouts if one.training])[:_MOST_PATHS]

    def _note_batch(self, gap: Gap, first: Tensor | None) -> None:
        """Has this batch been through the model since the last step? Only where statistics move."""
        if first is None or not any(norm.module.training and norm.moves for norm in self.norms):
            return
        version = version_of(first)
        if any(known() is first and version == at for known, at in self._batches):
            gap.repeated = True
        elif len(self._batches) < 8:
            self._batches.append((weakref.ref(first), version))
            if self.observed:
                self.prints.add(first)

    def _live(self) -> bool:
        """Is anything in train mode that makes a difference?"""
        norms, dropouts = self.norms, self.dropouts
        return any(one.module.training for one in norms) or any(one.training for _, one in dropouts)

    def _evaluating(self, *, live: bool) -> bool:
        """Is the model in eval mode, or all layers of it inside of a wrapper that is not?"""
        if not self.model.training:
            return True
        return bool(self.layers) and not live and not any(one.training for one in self.layers)

    def _close(self, gap: Gap) -> None:
        self.idle_steps += gap.idle > 0
        self.idle_forwards += gap.idle
        self._earlier_inputs, self._blind_inputs = self._blind_inputs or self._earlier_inputs, []
        if not gap.blind:
            return
        self.blind_steps += 1
        self.blind_forwards += gap.blind
        if gap.evaluates:
            self.evaluations += 1
            self.same += gap.same and not gap.expands
            self.inference += gap.inference and not gap.expands
            if self.first_evaluation is None:
                self.first_evaluation = self.steps

    def _foreign(self) -> bool:
        """Is this call none of ours: while compiling, paused, or in another thread (DataParallel)?"""
        if torch.compiler.is_compiling() or self.paused:
            return True
        current = threading.get_ident()
        if self._thread is None:
            self._thread = current
        return self._thread != current


class _Penalized:
    """On the output of a BatchNorm: notes a backward that builds a graph of its own."""

    def __init__(self, found: set[int], place: int) -> None:
        self.found = found
        self.place = place

    def __call__(self, gradient: Tensor) -> None:
        if torch.is_grad_enabled():  # as in a backward with create_graph=True, and in no other
            self.found.add(self.place)
