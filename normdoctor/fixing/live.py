"""`normdoctor.fix`: the fixes of findings applied to a live model, as far as they concern its modules."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from normdoctor.config import Settings
from normdoctor.doctor import check
from normdoctor.errors import RewriteError, UsageError, brief, kind_of
from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.fixing.liveedits import apply_to
from normdoctor.fixing.looking import Seen, counts_of
from normdoctor.fixing.proof import reason_between
from normdoctor.fixing.splices import Refused
from normdoctor.loading.target import from_object
from normdoctor.report import Report
from normdoctor.rewriting.apart import apart
from normdoctor.tracing.examine import Request, examine


@dataclass(frozen=True, slots=True)
class FixResult:
    """What `fix` did: the model, the findings whose fixes were applied, and those left with the reason."""

    model: nn.Module
    fixed: tuple[Finding, ...] = ()
    unfixed: tuple[tuple[Finding, str], ...] = ()
    verified: bool = False

    def __str__(self) -> str:
        lines = [
            f"{len(self.fixed)} fixed, {len(self.unfixed)} not{'' if self.verified else ' (not verified)'}"
        ]
        lines += [f"  {one.code} {', '.join(one.modules)}: {one.fix.title}" for one in self.fixed if one.fix]
        lines += [f"  {one.code} {', '.join(one.modules)} left: {reason}" for one, reason in self.unfixed]
        return "\n".join(lines)


def fix(
    model: nn.Module,
    findings: Iterable[Finding] | Report | None = None,
    *,
    inputs: Any = None,
    loss: object | None = None,
    unsafe: bool = False,
    verify: bool = True,
    inplace: bool = False,
) -> FixResult:
    """Apply the fixes of findings to a live model.

    What stands in the code of a forward cannot be changed in a model that exists: such findings are left,
    with that as the reason, for `normdoctor check --fix` on the source. A trained model keeps its outputs
    where the fix is safe: a bias that BatchNorm subtracts goes into its running mean, for example.

    Args:
        model: The model. It is copied unless `inplace`.
        findings: What to fix: findings of a check of this model, or its report; None checks it first.
        inputs: What to call the model with; inferred if None.
        loss: The loss, for rules about outputs.
        unsafe: Apply unsafe fixes as well.
        verify: Run the old and the new model and all rules, and leave out each fix that does not stand it.
        inplace: Change the model itself. An optimizer goes on training the parameters that stay.

    Raises:
        UsageError: An argument makes no sense.
        RewriteError: The model cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to fix, found {kind_of(model)}")
    for name, value in (("unsafe", unsafe), ("verify", verify), ("inplace", inplace)):
        if type(value) is not bool:
            raise UsageError(f"{name} is {kind_of(value)}: expected True or False")
    if findings is None:
        findings = check(model, inputs, loss=loss)
    if not isinstance(findings, Report | Iterable):
        raise UsageError(f"expected findings, or a report, found {kind_of(findings)}")
    chosen = findings.findings if isinstance(findings, Report) else tuple(findings)
    if not all(isinstance(one, Finding) for one in chosen):
        raise UsageError("expected findings, or a report", hint="For example fix(model, check(model)).")
    levels = (Applicability.SAFE, Applicability.UNSAFE) if unsafe else (Applicability.SAFE,)
    made = _copied(model)
    with apart(model, made, "`normdoctor check --fix` changes the source."):
        work = _Work(made, Request(inputs=inputs, loss=loss), verify)
        work.run(chosen, levels)
    result = work.model
    if inplace:
        for one in work.fixed:
            apply_to(model, one)
        result = model
    return FixResult(result, tuple(work.fixed), tuple(work.unfixed), verify)


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of weights that a hook computed and that hang on a graph."""
    hanging = [
        (vars(module), name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        for holder, name, value in hanging:
            holder[name] = value.detach()
        return copy.deepcopy(model)
    except Exception as error:
        raise RewriteError(f"the model cannot be copied: {brief(error)}") from error
    finally:
        for holder, name, value in hanging:
            holder[name] = value


class _Work:
    def __init__(self, model: nn.Module, request: Request, verify: bool) -> None:
        self.model = model
        self.request = replace(request, requirements=frozenset({"weights"}))
        self.fixed: list[Finding] = []
        self.unfixed: list[tuple[Finding, str]] = []
        self.verify = verify
        self.seen = self._look(model) if verify else None

    def run(self, chosen: Sequence[Finding], levels: Sequence[Applicability]) -> None:
        """Fix what can be; unsafe fixes come last: they may replace the layers that safe ones are about."""
        wanted: list[tuple[Finding, Fix]] = []
        for one in chosen:
            if one.fix is None or not one.fix.applicable:
                self.unfixed.append((one, "no fix is offered"))
            elif one.fix.applicability not in levels:
                self.unfixed.append((one, "its fix is unsafe (unsafe=True applies it)"))
            else:
                wanted.append((one, one.fix))
        for way in itertools.product(levels, (True, False)):
            self.settle([one for one, fix in wanted if (fix.applicability, fix.preserving) == way])

    def settle(self, findings: list[Finding]) -> None:
        """Apply all of these, or as many as stand their proof."""
        if not findings:
            return
        candidate = _copied(self.model)
        reason = ""
        try:
            for one in findings:
                apply_to(candidate, one)
        except Refused as refusal:
            reason = str(refusal)
        except Exception as error:  # odd modules: the copy is thrown away, the model is as it was
            reason = f"it cannot be applied: {brief(error)}"
        seen = self._look(candidate) if self.verify and not reason else None
        if seen is not None and self.seen is not None:
            reason = reason_between(self.seen, seen, findings)
        if not reason:
            self.model, self.seen = candidate, seen
            self.fixed += findings
        elif len(findings) == 1:
            self.unfixed.append((findings[0], reason))
        else:
            middle = (len(findings) + 1) // 2
            self.settle(findings[:middle])
            self.settle(findings[middle:])

    def _look(self, model: nn.Module) -> Seen:
        target = from_object(model)
        examination = examine(target, self.request)
        return Seen(target, examination, examination.facts, counts_of(examination.facts, Settings()))
