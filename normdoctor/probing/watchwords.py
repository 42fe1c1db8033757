"""What a watch is given: checked at once, and said in one sentence what is wrong with it."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normdoctor.errors import UsageError, kind_of
from normdoctor.loading.wrappers import unwrapped


def check_arguments(model: Any, optimizer: Any, every: Any, budget: Any, on_finding: Any) -> None:
    """Raise UsageError for arguments of `watch` that cannot be meant."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a module to watch, found {type(model).__name__}")
    if isinstance(unwrapped(model), torch.jit.ScriptModule):
        raise UsageError(
            "a ScriptModule runs without Python, so nothing in it can be watched",
            hint="Watch the module that it was made of.",
        )
    if (lazy := next((name for name, one in model.named_parameters() if is_lazy(one)), None)) is not None:
        raise UsageError(
            f"`{lazy}` belongs to a lazy module and does not exist yet, so it cannot be watched",
            hint="Run the model once on a batch before it is watched.",
        )
    for one in optimizers_of(optimizer):
        if not isinstance(one, torch.optim.Optimizer):
            raise UsageError(f"optimizer is {kind_of(one)}: expected a torch.optim.Optimizer, or several")
    check_settings(every, budget, on_finding)
    for one in optimizers_of(optimizer):
        _check_optimizer(model, one)


def check_settings(every: Any, budget: Any, on_finding: Any) -> None:
    """Raise UsageError for settings of a watch that cannot be meant."""
    if type(every) is not int or every < 1:
        raise UsageError(f"every counts steps and is at least 1; got {every!r}")
    if budget is not None and (type(budget) is not int or budget < 1):
        raise UsageError(f"budget counts values and is at least 1, or None; got {budget!r}")
    if not (callable(on_finding) or (isinstance(on_finding, str) and on_finding in ON_FINDING)):
        raise UsageError(f"on_finding is 'warn', 'stop', 'ignore' or a callable; got {on_finding!r}")
    if isinstance(on_finding, type):
        raise UsageError(f"on_finding is the class {on_finding.__name__}: expected a function of a finding")


def optimizers_of(optimizer: Any) -> tuple[Any, ...]:
    """One optimizer, several or none, as a tuple."""
    if optimizer is None:
        return ()
    return tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)


#: What to do with a finding, by name.
ON_FINDING = ("warn", "stop", "ignore")


def _check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """An optimizer trains something of the model, unless one of them has no parameters at all.

    FSDP1 and in-place surgery may exchange a model's parameters after the optimizer was made: then the
    optimizer trains nothing of it, and the training is broken as well.
    """
    own = {id(one) for one in model.parameters()}
    given = {id(one) for group in optimizer.param_groups for one in group["params"]}
    if own and given and not own & given:
        raise UsageError(
            f"the optimizer ({type(optimizer).__name__}) trains no parameter of the model that is watched",
            hint="Pass the optimizer of this model, made after model.to(device) and after all wrappers; "
            "or leave it out: its steps are seen anyway.",
        )


def check_loss(loss: Any) -> Tensor | float | None:
    """A loss that `step` is given, as a tensor or a plain number; None for one on meta, without a value."""
    if isinstance(loss, bool) or not isinstance(loss, Tensor | Real):  # numpy's numbers are real ones too
        hint = "Pass the tensor of one number that backward() was called on, or loss.item()."
        raise UsageError(f"loss is {kind_of(loss)}: expected a tensor or a number", hint=hint)
    if not isinstance(loss, Tensor):
        try:
            return float(loss)
        except OverflowError:
            raise UsageError("loss is a whole number beyond the largest float") from None
    if loss.is_complex() or loss.dtype == torch.bool:
        raise UsageError(f"loss is a tensor of {loss.dtype}: expected real numbers")
    if loss.numel() == 0:
        raise UsageError(f"loss is a tensor of shape {tuple(loss.shape)}, which holds no number")
    if loss.layout != torch.strided:
        raise UsageError(f"loss is a tensor of layout {loss.layout}: expected a dense one")
    return None if loss.is_meta else loss
