"""Losses that the user names: brought into one form, called on the model's result, and recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from normdoctor.errors import UsageError, brief, near
from normdoctor.tracing.recording import LossCall, output_tensors

_FUNCTIONAL = (
    "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss "
    "l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss"
).split()


def find_loss(loss: object) -> Callable[..., Any]:
    """A loss from what the user gave: a module, a class of torch's, a callable, or a name of either."""
    if isinstance(loss, str):
        name = loss.removeprefix("torch.").removeprefix("nn.").removeprefix("functional.").removeprefix("F.")
        if name in _FUNCTIONAL:
            found: Any = getattr(torch.nn.functional, name)
            return found  # type: ignore[no-any-return]
        classes = [one for one in dir(nn) if one.endswith("Loss")]
        if name in classes:
            return _made(getattr(nn, name))
        raise UsageError(
            f"unknown loss `{loss}`: expected a loss of torch.nn or torch.nn.functional",
            hint=near(name, [*classes, *_FUNCTIONAL]) or "For example cross_entropy or MSELoss.",
        )
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        return _made(loss)
    if callable(loss):
        return loss
    raise UsageError(f"`loss` is a {type(loss).__name__}: expected a torch loss, a callable or a name")


def _made(loss: type[nn.Module]) -> nn.Module:
    try:
        return loss()
    except TypeError as error:
        raise UsageError(
            f"the loss {loss.__name__} cannot be made without arguments: {brief(error)}",
            hint="Pass the loss itself, with its arguments.",
        ) from error


def loss_call(loss: object, labels: Any = None) -> LossCall:
    """How to apply a loss to the model's result.

    With `labels`, `loss(result, labels)`. Without, labels are made up: class indices where they fit,
    otherwise values like the output. A callable that takes one argument gets the result alone. A
    result with several tensors is passed whole to the user's callables, its first tensor to torch's.
    """
    function = find_loss(loss)
    ours = getattr(function, "__module__", "") or type(function).__module__
    from_torch = ours.startswith("torch.") or type(function).__module__.startswith("torch.")

    def apply(result: Any, stand: Callable[[torch.Tensor], torch.Tensor]) -> None:
        value = _first_tensor(result) if from_torch else result
        if _takes_one(function):
            function(value)
            return
        options = [_carried(labels, stand)] if labels is not None else list(_made_up(result, stand))
        for index, given in enumerate(options):
            try:
                function(value, given)
                return
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
                if index == len(options) - 1:
                    raise

    return apply


def _first_tensor(result: Any) -> Any:
    if isinstance(result, dict) and "logits" in result:
        return result["logits"]
    return next((tensor for _, tensor in output_tensors(result)), result)


def _takes_one(function: Callable[..., Any]) -> bool:
    target = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind in plain]
    return len(required) == 1


def _carried(labels: Any, stand: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(labels, torch.Tensor):
        return stand(labels)
    if isinstance(labels, list | tuple):
        return type(labels)(_carried(item, stand) for item in labels)
    if isinstance(labels, dict):
        return {key: _carried(item, stand) for key, item in labels.items()}
    return labels


def _made_up(result: Any, stand: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[torch.Tensor]:
    output = _first_tensor(result)
    if not isinstance(output, torch.Tensor):
        return
    with torch._C.DisableTorchFunction():
        if output.dim() >= 2:
            yield stand(torch.zeros((output.shape[0], *output.shape[2:]), dtype=torch.int64))
        yield stand(torch.zeros(tuple(output.shape), dtype=output.dtype))
