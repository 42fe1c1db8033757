"""`normdoctor.convert`: other layers in the place of a model's own, with a proof of what that changed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from normdoctor.errors import RewriteError, TraceError, UsageError, brief, kind_of
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.state import inventory
from normdoctor.loading.wrappers import unwrapped, wrapped
from normdoctor.rewriting.apart import apart
from normdoctor.rewriting.conversions import find_conversion
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.families import Kind, family_of, identify
from normdoctor.rewriting.ledger import reconcile
from normdoctor.rewriting.listing import calls_elsewhere
from normdoctor.rewriting.result import ConvertResult, Refusal, Replacement, Verdict
from normdoctor.rewriting.scene import Scene
from normdoctor.rewriting.surgery import carry_over, note_origin, origin_of, tensors_of
from normdoctor.rewriting.verify import TOLERANCE, Difference, Outputs, compare, compare_layers, run, unequal
from normdoctor.rewriting.where import Predicate, Where, predicate
from normdoctor.tracing.inputs import as_example, to_device

#: Bytes of a model that is not run on inputs that nobody gave.
UNASKED = 2**31


def convert(
    model: nn.Module,
    spec: str,
    *,
    inputs: Any = None,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    where: Where | None = None,
    verify: bool = True,
    inplace: bool = False,
    num_groups: int | None = None,
) -> ConvertResult:
    """Replace the norm layers of a model, and measure what that does to its outputs.

    What is not the layer itself stays: shared layers stay shared, parameters of the same shape are the same
    objects, and hooks, mode, dtype, device, names and attributes are handed over. Layers that are more than
    their type says, such as subclasses with a forward of their own, keep what they are or are refused with a
    reason. Where anything fails, the model and the optimizer are as they were.

    Args:
        model: The model. It is copied unless `inplace`.
        spec: What to do: `"batch->group"`, `"batch->none"`, `"torch->own"`, `"layer->rms"`, ...; an unknown
            one gives the list.
        inputs: What to call the model with, to record its forward and to compare its outputs before and
            after. Made up where None, as far as the model allows.
        data: Batches to calibrate an approximate conversion with, as for `check`.
        optimizer: The optimizer of the model, which goes on training the converted one: parameters that
            stay are the same objects, others leave it or join it. That needs `inplace`.
        where: Layers to convert: glob patterns of paths, types, findings or a report of `check`, or a
            function of path and module; all if None.
        verify: Compare before and after, and take everything back where a conversion that should be exact
            is not.
        inplace: Change the model itself. Layers change their class then: they stay the same objects.
        num_groups: Number of groups; chosen for each layer if None.

    Raises:
        UsageError: An argument makes no sense.
        RewriteError: The model cannot be converted, does not run any more, or is not what it should be.
        TraceError: The model does not run on `inputs`.
    """
    _check_arguments(model, optimizer, num_groups, verify, inplace)
    chosen = predicate(where)
    conversion = find_conversion(spec)(num_groups)
    _refuse_unfit(model)
    if optimizer is not None:
        _check_optimizer(model, optimizer, inplace)
    with torch.inference_mode(False):  # what is made here is to be trained
        subject = model if inplace else _copied(model)
        scene = Scene(subject, _example(subject, inputs), data, inferred=verify or conversion.traced)
        work = _Work(scene, conversion, chosen, verify, inplace)
        try:
            with nullcontext() if inplace else apart(model, subject):
                return work.run(optimizer)
        except BaseException:
            scene.journal.restore()
            raise


class _Work:
    """The steps of one conversion."""

    def __init__(
        self, scene: Scene, conversion: Conversion, chosen: Predicate, verify: bool, inplace: bool
    ) -> None:
        self.scene, self.conversion, self.chosen = scene, conversion, chosen
        self.verify, self.inplace = verify, inplace
        self.model = scene.model
        tensors = (*scene.model.parameters(), *scene.model.buffers())
        self.large = sum(one.numel() * one.element_size() for one in tensors) > UNASKED
        self.left = 0
        self.known: dict[Any, Kind | None] = {}
        self.registered = {id(one) for one in scene.model.modules()}
        self.refused: list[Refusal] = []
        self.replaced: list[Replacement] = []

    def run(self, optimizer: torch.optim.Optimizer | None) -> ConvertResult:
        found = self._candidates()
        if found and self.verify and self.conversion.exact:
            _ = self.scene.flow  # infers inputs, where none were given
        names = tensors_of(self.model)
        keys = list(self.model.state_dict())
        parameters = dict(self.model.named_parameters())
        self.scene.candidates = {path: module for path, module, _ in found}
        before = self._outputs(self.scene.candidates)
        self.conversion.begin(self.scene)
        places = self._convert(found)
        self.conversion.finish(places, self.scene)
        if optimizer is not None and self.replaced:
            self.scene.notes += reconcile(
                optimizer, parameters, self.model, self.scene.heirs, self.scene.journal
            )
        elif self.inplace and {id(p) for p in parameters.values()} != {
            id(p) for p in self.model.parameters()
        }:
            self.scene.notes.append("the model has other parameters now: optimizer= keeps one in step")
        after = self._outputs({place.path: place.module for place in places}, again=True)
        differences = compare(before, after) if before.modes else {}
        self._prove(before, after, differences)
        self._list_calls()
        return self._result(keys, names, before, after, differences)

    def _candidates(self) -> list[tuple[str, nn.Module, tuple[str, ...]]]:
        """The layers that the conversion is about, under their first path, with the other ones."""
        found = []
        for path, entry in inventory(self.model).modules.items():
            family = family_of(entry.module)
            if family not in self.conversion.families or not self.conversion.concerns(entry.module):
                continue
            if any(self.chosen(name, entry.module) for name in (path, *entry.aliases)):
                found.append((path, entry.module, tuple(entry.aliases)))
            else:
                self.left += 1
        return found

    def _convert(self, found: list[tuple[str, nn.Module, tuple[str, ...]]]) -> list[Place]:
        scene, conversion = self.scene, self.conversion
        done: list[Place] = []
        for path, module, aliases in found:
            flow = scene.known_flow
            shapes = flow.shapes(module) if flow is not None else ()
            family = family_of(module)
            assert family is not None
            said = repr(module)
            try:
                self._demand_reached(module)
                place = Place(path, module, identify(module, family, shapes, self.known), shapes)
                scene.places.append(place)
                new = conversion.replacement(place, scene)
                origin = origin_of(module)
                added = origin.added if origin is not None else frozenset()
                carry_over(module, new, conversion.own_state | added)
                if conversion.leads_back:
                    note_origin(module, new)
                scene.journal.become(module, new)
            except Refused as reason:
                self.refused.append(Refusal(path, str(reason)))
                continue
            done.append(place)
            self.replaced.append(Replacement(path, said, repr(module), aliases))
        return done

    def _demand_reached(self, module: nn.Module) -> None:
        """Refuse, where eval mode counts, a layer that the model does not know as its own."""
        if self.conversion.exact == {"eval"} and module.training and id(module) not in self.registered:
            raise Refused("it stands in a plain container, where eval() does not reach it")

    def _outputs(self, layers: dict[str, nn.Module], *, again: bool = False) -> Outputs:
        """What the model returns; nothing where it cannot be run here."""
        example = self.scene.example
        given = example is not None and example.source == "given"
        if example is None or _is_meta(self.model) or not (given or (self.verify and not self.large)):
            return Outputs()
        outputs = run(self.model, example, layers)
        if isinstance(outputs.modes["eval"], str) and not again:
            if given:
                raise TraceError(
                    f"the model raised on the inputs, before it was changed: {outputs.modes['eval']}"
                )
            return Outputs()
        return outputs

    def _prove(self, before: Outputs, after: Outputs, differences: dict[str, Difference]) -> None:
        """Take everything back where the model does not run any more, or an exact rewrite is not exact."""
        if not before.modes:
            return
        for mode, outputs in after.modes.items():
            if isinstance(outputs, str) and not isinstance(before.modes[mode], str):
                raise RewriteError(
                    f"the converted model raised in {mode} mode: {outputs}",
                    hint="Its code uses the old layer directly. Leave that layer out with where=.",
                )
        if not self.verify or not self.replaced:
            return
        assert self.scene.example is not None
        wrong = unequal(self.model, self.scene.example, after, differences, sorted(self.conversion.exact))
        if wrong is not None:
            worst = compare_layers(before, after)
            place = max(worst, key=lambda path: worst[path].relative) if worst else ""
            hint = f"The output of `{place}` moved most. Leave it out with where=, or pass verify=False."
            if place and worst[place].relative <= TOLERANCE[torch.float32]:
                hint = (
                    "The outputs of all replaced layers are the same: random numbers behind them may meet "
                    "other elements, since dropout draws in the order of memory. If so, pass verify=False."
                )
            raise RewriteError(
                f"{self.conversion.spec} should be exact and is not: {wrong}; everything was taken back",
                hint=hint,
            )

    def _list_calls(self) -> None:
        """List the norms that are no layers, which nobody can replace in a live model."""
        flow = self.scene.known_flow
        if flow is not None and self.conversion.calls:
            found = calls_elsewhere(flow, self.conversion.calls, self.chosen)
            self.refused += [Refusal(path, reason) for path, reason in found]

    def _result(
        self,
        keys: Sequence[str],
        names: dict[str, torch.Tensor],
        before: Outputs,
        after: Outputs,
        differences: dict[str, Difference],
    ) -> ConvertResult:
        conversion, scene = self.conversion, self.scene
        held = tensors_of(self.model)
        now = {id(value): name for name, value in reversed(held.items())}
        new_keys = set(self.model.state_dict())
        written = {id(value) for value in scene.journal.written}
        verified = (
            bool(before.modes)
            and self.verify
            and all(
                mode in differences for mode in conversion.exact if not isinstance(before.modes[mode], str)
            )
        )
        notes = (
            [*scene.notes, *conversion.notes(scene.places if self.replaced else [])] if self.replaced else []
        )
        return ConvertResult(
            model=self.model,
            spec=conversion.spec,
            verdict=self._verdict(differences),
            verified=verified,
            exact_in=tuple(sorted(conversion.exact)),
            replaced=tuple(self.replaced),
            refused=tuple(self.refused),
            key_map={key: _renamed(key, scene.moved, new_keys) for key in keys},
            parameter_map={
                name: name if held.get(name) is value else now.get(id(value))
                for name, value in names.items()
                if isinstance(value, nn.Parameter)
            },
            changed=tuple(name for name, value in held.items() if id(value) in written),
            differences=differences,
            layers=compare_layers(before, after),
            notes=(*notes, *self._remarks(before)),
        )

    def _verdict(self, differences: dict[str, Difference]) -> Verdict:
        if not self.replaced:
            return "refused" if self.refused else "exact"
        return "exact" if self.conversion.exact else "approximate"

    def _remarks(self, before: Outputs) -> list[str]:
        found = [
            f"not compared in {mode} mode, where the old model raised {text}"
            for mode, text in before.modes.items()
            if isinstance(text, str)
        ]
        if self.verify and self.replaced and self.conversion.exact and not before.modes:
            found.append(f"not verified: {self._why_not_run()}")
        if self.left and not self.replaced and not self.refused:
            found.append(f"where chose none of the {self.left} layers that the conversion is about")
        return found

    def _why_not_run(self) -> str:
        if _is_meta(self.model):
            return "the model is on the meta device"
        if self.large and self.scene.example is not None:
            return "the model is large, and no inputs were given"
        return self.scene.why_no_flow or "the model could not be run"


def _renamed(key: str, moved: dict[str, str], now: set[str]) -> str | None:
    new = moved.get(key, key)
    return new if new in now else None


def _check_arguments(
    model: object, optimizer: object, num_groups: object, verify: object, inplace: object
) -> None:
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to convert, found {type(model).__name__}")
    if num_groups is not None and (type(num_groups) is not int or num_groups < 1):
        raise UsageError(f"num_groups is a whole number of at least 1; got {num_groups!r}")
    for name, value in (("verify", verify), ("inplace", inplace)):
        if type(value) is not bool:
            raise UsageError(f"{name} is {kind_of(value)}: expected True or False")
    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise UsageError(f"optimizer is {kind_of(optimizer)}: expected a torch.optim.Optimizer")


def _check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, inplace: bool) -> None:
    if not inplace:
        hint = "Pass inplace=True, or make a new optimizer for the converted model."
        raise UsageError("an optimizer was given, but a copy has parameters of its own", hint=hint)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if held.isdisjoint(id(parameter) for parameter in model.parameters()):
        hint = "Was the model copied or moved after the optimizer was made?"
        raise UsageError("the optimizer holds no parameter of the model", hint=hint)


def _refuse_unfit(model: nn.Module) -> None:
    if unwrapped(model) is not model:
        hint = "Convert the model itself first, then wrap it again."
        raise RewriteError(f"{type(model).__name__} wraps the model that is to be converted", hint=hint)
    for path, module in model.named_modules():
        where = f"`{path}`" if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise RewriteError(
                f"{where} is scripted and cannot be changed",
                hint="Convert the model before torch.jit.script.",
            )
        if wrapped(module) is not None or getattr(module, "_compiled_call_impl", None) is not None:
            raise RewriteError(
                f"{where} is compiled or wrapped ({type(module).__name__}): old code would go on running",
                hint="Convert the model first, then compile or wrap it.",
            )
        if type(module).__module__.startswith(
            ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic", "torch.ao.nn.qat")
        ):
            raise RewriteError(
                f"{where} is quantized, or prepared for it ({type(module).__name__})",
                hint="Convert the model before it is quantized.",
            )
    if any(is_lazy(value) for value in (*model.parameters(), *model.buffers())):
        raise RewriteError(
            "the model has lazy modules", hint="Run it once on a batch, so that they are made."
        )
    if any(value.is_inference() for value in (*model.parameters(), *model.buffers())):
        raise RewriteError(
            "the model holds inference tensors, which nobody can change",
            hint="Build or load it outside torch.inference_mode().",
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise RewriteError(
            f"the model cannot be copied: {brief(error)}",
            hint="Pass inplace=True to change the model itself.",
        ) from error


def _example(model: nn.Module, inputs: Any) -> ExampleInputs | None:
    if inputs is None:
        return None
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    example = as_example(inputs)
    if any(one.is_meta for one in _tensors(example)) and device.type != "meta":
        raise UsageError("inputs are on the meta device and have no values, but the model has")
    return to_device(example, device)


def _tensors(example: ExampleInputs) -> list[torch.Tensor]:
    leaves = tree_leaves((example.args, example.kwargs))
    return [one for one in leaves if isinstance(one, torch.Tensor)]


def _is_meta(model: nn.Module) -> bool:
    return any(one.is_meta for one in (*model.parameters(), *model.buffers()))
