"""`normdoctor.convert`: other layers in the place of a model's own, with a proof of what that changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from normdoctor.errors import RewriteError, TraceError, UsageError, kind_of
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.wrappers import unwrapped
from normdoctor.rewriting.conversions import find_conversion
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.surgery import carry_over, exchange, paths_of
from normdoctor.rewriting.verify import Difference, Outputs, compare, input_shapes, run
from normdoctor.tracing.inputs import as_example, to_device

#: Which layers to convert: glob patterns of their paths, or a function of path and module.
Where = str | Sequence[str] | Callable[[str, nn.Module], bool]
Verdict = Literal["exact", "approximate", "refused"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """One layer that was replaced: all its paths, and both layers as they print."""

    path: str
    old: str
    new: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One layer that was left as it is, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What `convert` did.

    `key_map` gives, for each key of the old state dict, the new one, or None where it is gone.
    `differences` has the change of the outputs in `"eval"` and `"train"` mode; it is empty where no inputs
    were given.
    """

    model: nn.Module
    spec: str
    verdict: Verdict
    replaced: tuple[Replacement, ...] = ()
    refused: tuple[Refusal, ...] = ()
    key_map: dict[str, str | None] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.spec}: {len(self.replaced)} replaced, {len(self.refused)} refused; {self.verdict}"]
        for new in self.replaced:
            also = f" (also {', '.join(new.aliases)})" if new.aliases else ""
            lines.append(f"  {new.path or 'the model'}{also}: {new.old} -> {new.new}")
        lines += [f"  {left.path or 'the model'} refused: {left.reason}" for left in self.refused]
        lines += [f"  {mode} outputs differ: {value}" for mode, value in self.differences.items()]
        dropped = sum(new is None for new in self.key_map.values())
        lines += [f"  {dropped} keys of the state dict are gone"] if dropped else []
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def convert(
    model: nn.Module,
    spec: str,
    *,
    inputs: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    where: Where | None = None,
    inplace: bool = False,
    num_groups: int | None = None,
) -> ConvertResult:
    """Replace the norm layers of a model, and measure what that does to its outputs.

    What is not the layer itself stays: shared layers stay shared, parameters of the same shape are the same
    objects, and hooks, mode, dtype, device, names and attributes are handed over. Layers that are more than
    their type says, such as subclasses with a forward of their own, are refused with a reason.

    Args:
        model: The model. It is copied unless `inplace`.
        spec: What to do: `"batch->group"`.
        inputs: What to call the model with, to compare its outputs before and after.
        optimizer: The optimizer of the model, which goes on training the converted one: all parameters in
            it stay the same objects. That needs `inplace`.
        where: Layers to convert: glob patterns of paths, or a function of path and module; all if None.
        inplace: Change the model itself.
        num_groups: Number of groups; chosen for each layer if None.

    Raises:
        UsageError: An argument makes no sense.
        RewriteError: The model cannot be copied, or does not run any more; it is then as it was.
        TraceError: The model does not run on `inputs`.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to convert, found {type(model).__name__}")
    if num_groups is not None and (type(num_groups) is not int or num_groups < 1):
        raise UsageError(f"num_groups is a whole number of at least 1; got {num_groups!r}")
    if not _is_where(where):
        raise UsageError(
            f"where is {kind_of(where)}: expected patterns of paths, or a function of path and module",
            hint='For example where="layer1.*" or where=lambda path, module: "layer1" in path.',
        )
    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise UsageError(f"optimizer is {kind_of(optimizer)}: expected a torch.optim.Optimizer")
    if optimizer is not None:
        _check_optimizer(model, optimizer, inplace)
    conversion = find_conversion(spec)(num_groups)
    _refuse_unfit(model)
    subject = model if inplace else _copied(model)
    example = _example(subject, inputs)
    before = _outputs_before(subject, example)
    keys = list(subject.state_dict())

    plan, refused = _plan(subject, conversion, where, example)
    paths = paths_of(subject)
    replaced = tuple(
        Replacement(place.path, repr(place.module), repr(new), tuple(paths[id(place.module)][1:]))
        for place, new in plan
    )
    for place, new in plan:
        carry_over(place.module, new, conversion.own_state)
    undo = exchange(subject, {id(place.module): new for place, new in plan})
    result = plan[0][1] if plan and plan[0][0].module is subject else subject
    differences = _differences(result, example, before, undo)
    new_keys = set(result.state_dict())
    return ConvertResult(
        model=result,
        spec=conversion.spec,
        verdict=_verdict(conversion, replaced, refused),
        replaced=replaced,
        refused=refused,
        key_map={key: key if key in new_keys else None for key in keys},
        differences=differences,
        notes=(*conversion.notes([place for place, _ in plan]), *_failures(before)),
    )


def _plan(
    model: nn.Module, conversion: Conversion, where: Where | None, example: ExampleInputs | None
) -> tuple[list[tuple[Place, nn.Module]], tuple[Refusal, ...]]:
    chosen = {p: m for p, m in model.named_modules() if conversion.concerns(m) and _selected(p, m, where)}
    shapes = input_shapes(model, chosen, example) if example is not None else {}
    plan, refused = [], []
    for path, module in chosen.items():
        place = Place(path, module, shapes.get(path, ()))
        try:
            plan.append((place, conversion.replacement(place)))
        except Refused as reason:
            refused.append(Refusal(path, str(reason)))
    return plan, tuple(refused)


def _is_where(where: object) -> bool:
    patterns = isinstance(where, Sequence) and all(isinstance(pattern, str) for pattern in where)
    return where is None or callable(where) or patterns


def _selected(path: str, module: nn.Module, where: Where | None) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(path, module))
    patterns = [where] if isinstance(where, str) else where
    return any(fnmatchcase(path, pattern) for pattern in patterns)


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
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise RewriteError(
            "a scripted module cannot be changed", hint="Convert the model before torch.jit.script."
        )
    if any(is_lazy(value) for value in (*model.parameters(), *model.buffers())):
        raise RewriteError(
            "the model has lazy modules", hint="Run it once on a batch, so that they are made."
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise RewriteError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            hint="Pass inplace=True to change the model itself.",
        ) from error


def _example(model: nn.Module, inputs: Any) -> ExampleInputs | None:
    if inputs is None:
        return None
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    return to_device(as_example(inputs), device)


def _outputs_before(model: nn.Module, example: ExampleInputs | None) -> Outputs:
    if example is None:
        return {}
    outputs = run(model, example)
    if isinstance(outputs["eval"], str):
        raise TraceError(f"the model raised on the inputs, before it was changed: {outputs['eval']}")
    return outputs


def _differences(
    model: nn.Module, example: ExampleInputs | None, before: Outputs, undo: Callable[[], None]
) -> dict[str, Difference]:
    if example is None:
        return {}
    after = run(model, example)
    for mode, outputs in after.items():
        if isinstance(outputs, str) and not isinstance(before[mode], str):
            undo()
            raise RewriteError(
                f"the converted model raised in {mode} mode: {outputs}",
                hint="Its code uses the old layer directly. Leave that layer out with where=.",
            )
    return compare(before, after)


def _failures(before: Outputs) -> list[str]:
    return [
        f"not compared in {mode} mode, where the old model raised {text}"
        for mode, text in before.items()
        if isinstance(text, str)
    ]


def _verdict(conversion: Conversion, replaced: Sequence[Replacement], refused: Sequence[Refusal]) -> Verdict:
    if not replaced:
        return "refused" if refused else "exact"
    return "exact" if conversion.exact else "approximate"
