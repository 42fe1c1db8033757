"""Proving a change: the model loads and runs, computes the same where it must, and no rule says more."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.errors import brief
from normdoctor.findings import Finding
from normdoctor.fixing.looking import Look, Seen, weight
from normdoctor.fixing.rightcalls import RightCalls
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.state import Inventory, inventory
from normdoctor.probing.sandbox import sandbox
from normdoctor.tracing.recording import output_tensors

#: The largest difference, relative to the largest output, by the precision that the models ran in.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
Outputs = dict[str, dict[str, Tensor]]


def problem_of(before: Look, after: Look, fixed: Sequence[Finding]) -> str:
    """Why a change does not stand; empty where it does."""
    for problem in after.report.problems:
        if not any(problem.target == known.target for known in before.report.problems):
            return f"the model could not be examined any more: {problem.message}"
    for name, old in before.seen.items():
        new = after.seen.get(name)
        if new is None:
            return f"the changed source does not build `{name}` any more"
        if reason := reason_between(old, new, [finding for finding in fixed if finding.target == name]):
            return reason
    return ""


def reason_between(old: Seen, new: Seen, fixed: Sequence[Finding]) -> str:
    """Why the fixes of these findings do not stand for one model; empty where they do."""
    same = all(finding.fix is not None and finding.fix.preserving for finding in fixed)
    if reason := _said(old, new, fixed):
        return reason
    return difference(old, new, fixed) if same and fixed else ""


def _said(old: Seen, new: Seen, fixed: Sequence[Finding]) -> str:
    """What rules say that they did not say before, or say still."""
    if old.facts.nodes and not new.facts.nodes:
        return "the forward could not be recorded any more"
    fresh = sorted(set(new.counts) - set(old.counts))
    if fresh:
        return f"{', '.join(fresh)} would fire, which did not before"
    goal: dict[str, int] = {}
    for finding in fixed:
        goal[finding.code] = goal.get(finding.code, 0) + weight(finding)
    for code, count in goal.items():
        if code in old.counts and new.counts[code] > old.counts[code] - count:
            return f"{code} would still fire"
    return ""


# -- outputs ---------------------------------------------------------------------------------------


def difference(old: Seen, new: Seen, fixed: Sequence[Finding]) -> str:
    """How the outputs of a changed model differ, with the old one's state; empty where they do not."""
    recording, other = old.examination.recording, new.examination.recording
    if recording is None or other is None:
        return "the outputs cannot be compared, since the forward could not be recorded"
    pairs = [(recording.model, other.model)]
    try:
        pairs.insert(0, (_doubled(recording.model), _doubled(other.model)))
    except Exception:
        pairs = pairs[:1]
    reason = ""
    with old.target.active():
        for model, changed in pairs:
            wide = model is not recording.model
            dtype = torch.float64 if wide else torch.float32
            try:
                example = _cast(recording.example, dtype) if wide else recording.example
                before = _run(model, example, fixed, [old for old, _ in _carried(fixed)])
            except Exception as error:
                reason = f"the old model does not run: {brief(error)}"
                continue
            reason = _compared(model, changed, example, before, fixed, TOLERANCE[dtype], new)
            break
    return reason


def measured(before: Look, after: Look) -> dict[str, float]:
    """How far the outputs moved, relative to their size, by mode; with the old state where names agree."""
    found: dict[str, float] = {}
    for name, old in before.seen.items():
        new = after.seen.get(name)
        recording = old.examination.recording
        other = new.examination.recording if new is not None else None
        if new is None or recording is None or other is None:
            continue
        try:
            model, changed = copy.deepcopy(recording.model), copy.deepcopy(other.model)
            with old.target.active():
                first = _run(model, recording.example, (), ())
            _hand_over(inventory(model), inventory(changed), (), (), 0, lenient=True)
            with new.target.active():
                second = _run(changed, recording.example, (), ())
        except Exception:  # a model that cannot be copied is not compared
            continue
        for mode, outputs in first.items():
            pairs = [(a, second[mode][key]) for key, a in outputs.items() if key in second[mode]]
            gap = sum(float((a - b).double().norm() ** 2) for a, b in pairs if a.is_floating_point())
            size = sum(float(a.double().norm() ** 2) for a, _ in pairs if a.is_floating_point())
            found[mode] = max(found.get(mode, 0.0), (gap / size) ** 0.5 if size else 0.0)
    return found


def _compared(
    model: nn.Module,
    changed: nn.Module,
    example: ExampleInputs,
    before: Outputs,
    fixed: Sequence[Finding],
    tolerance: float,
    new: Seen,
) -> str:
    absorbed = [names for finding in fixed if finding.fix for names in finding.fix.absorbed]
    carried = _carried(fixed)
    reason = ""
    for choice in range(max([len(names) for names in absorbed], default=2) - 1 or 1):
        with sandbox(changed):
            reason = _hand_over(inventory(model), inventory(changed), absorbed, carried, choice)
            if reason:
                continue
            with new.target.active():
                try:
                    after = _run(changed, example, (), [new_name for _, new_name in carried])
                except Exception as error:
                    return f"the changed model does not run: {brief(error)}"
            reason = _distance(before, after, tolerance)
        if not reason:
            return ""
    return reason


def _carried(fixed: Sequence[Finding]) -> list[tuple[str, str]]:
    return [pair for finding in fixed if finding.fix for step in finding.fix.steps for pair in step.carries]


def _run(model: nn.Module, example: ExampleInputs, fixed: Sequence[Finding], state: Sequence[str]) -> Outputs:
    """The outputs in eval and in train mode, from the same random numbers, also of modules that hide.

    Among those in train mode is what the forward made of the tensors that are named in `state`, but for
    running variances, which torch takes from n - 1 values.
    """
    found: Outputs = {}
    altered = [finding for finding in fixed if finding.fix is not None and finding.fix.alters]
    for mode in ("eval", "train"):
        with (
            warnings.catch_warnings(action="ignore"),
            sandbox(model),
            torch.set_grad_enabled(mode == "train"),
            RightCalls(altered, training=mode == "train"),
        ):
            for entry in inventory(model).modules.values():
                entry.module.training = mode == "train"
            torch.manual_seed(0)
            args, kwargs = copy.deepcopy((example.args, example.kwargs))
            result = model(*args, **kwargs)
            found[mode] = {name: tensor.detach().clone() for name, tensor in output_tensors(result)}
            tensors = inventory(model).tensors
            for place, name in enumerate(state):
                if mode == "train" and name in tensors and "var" not in name.rpartition(".")[2]:
                    found[mode][f"state {place}"] = tensors[name].tensor.detach().flatten().clone()
    return found


def _distance(before: Outputs, after: Outputs, tolerance: float) -> str:
    for mode, old in before.items():
        new = after[mode]
        if list(old) != list(new):
            return f"other outputs in {mode} mode: {', '.join(new)}"
        for name, a in old.items():
            b = new[name]
            if a.shape != b.shape or a.dtype != b.dtype:
                return f"in {mode} mode the output `{name}` has another shape or type"
            if not a.numel():
                continue
            gap = (a.to(torch.complex128) - b.to(torch.complex128)).abs()
            worst, scale = gap.nan_to_num(0.0).max().item(), a.abs().double().nan_to_num(0.0).max().item()
            if worst > tolerance * max(scale, 1e-6) or (a.isnan() != b.isnan()).any():
                return f"the outputs in {mode} mode would differ by {worst:.3g} (the largest is {scale:.3g})"
    return ""


def _doubled(model: nn.Module) -> nn.Module:
    made = copy.deepcopy(model)
    for entry in inventory(made).tensors.values():
        if entry.tensor.is_floating_point():
            entry.tensor.data = entry.tensor.data.double()
    return made


def _cast(example: ExampleInputs, dtype: torch.dtype) -> ExampleInputs:
    def cast(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        if type(value) in (list, tuple):
            return type(value)(cast(item) for item in value)
        if type(value) is dict:
            return {key: cast(item) for key, item in value.items()}
        return value

    return ExampleInputs(cast(example.args), cast(example.kwargs))


# -- state -----------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    """`blocks[0].weight` and `heads['a'].weight` as they are called once torch knows of them."""
    return re.sub(r"\[(?:'([^']*)'|\"([^\"]*)\"|(\d+))\]", lambda m: f".{m[1] or m[2] or m[3]}", name)


def _hand_over(
    old: Inventory,
    new: Inventory,
    absorbed: Sequence[tuple[str, ...]],
    carried: Sequence[tuple[str, str]],
    choice: int,
    *,
    lenient: bool = False,
) -> str:
    """Give the changed model the state of the old one; says what has no counterpart, unless `lenient`."""
    known = {_plain(name): entry.tensor for name, entry in old.tensors.items()}
    known |= {_plain(alias): entry.tensor for entry in old.tensors.values() for alias in entry.aliases}
    known |= {new_name: known[_plain(name)] for name, new_name in carried if _plain(name) in known}
    counted = (name for name in new.tensors if not name.endswith("num_batches_tracked"))
    missing = [name for name in counted if _plain(name) not in known]
    if missing and not lenient:
        return f"the changed model has a tensor that the old one lacks: {missing[0]}"
    with torch.no_grad():
        for name, entry in new.tensors.items():
            value = known.get(_plain(name))
            if value is None:
                continue
            if value.numel() != entry.tensor.numel():
                if lenient:
                    continue
                return f"`{name}` has another shape"
            entry.tensor.data.copy_(value.reshape(entry.tensor.shape))
        for gone, *takers in absorbed:
            if _plain(gone) in {_plain(name) for name in new.tensors} or not takers:
                continue
            ordered = sorted(takers, key=lambda name: "mean" not in name.rpartition(".")[2])
            taker = new.tensors.get(ordered[min(choice, len(ordered) - 1)])
            if taker is not None and taker.tensor.numel() == known[_plain(gone)].numel():
                taker.tensor.data.sub_(known[_plain(gone)].reshape(taker.tensor.shape))
    return ""
