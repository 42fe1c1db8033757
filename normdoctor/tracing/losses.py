"""Losses that the user names: brought into one form, called on the model's result, and recorded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from normdoctor.errors import UsageError, brief, kind_of, near
from normdoctor.tracing.recording import LossCall, StandFor, output_tensors

FUNCTIONAL = (
    "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss "
    "l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss gaussian_nll_loss hinge_embedding_loss "
    "multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss soft_margin_loss "
    "margin_ranking_loss triplet_margin_loss cosine_embedding_loss ctc_loss"
).split()

#: What models call the output that a loss takes, where they return several by name.
_MAIN = ("logits", "out", "output", "outputs", "prediction", "predictions", "pred", "preds")

#: Outputs of which labels are made up, until one fits.
_MOST_OUTPUTS = 4

_SPACES = ("torch.", "nn.", "functional.", "F.")


def is_torch_name(text: str) -> bool:
    """Is it written like a loss of torch's (`CrossEntropyLoss`, `F.mse_loss`), not like a target string?"""
    return ":" not in text and not text.endswith(".py")


def find_loss(loss: object) -> Callable[..., Any]:
    """A loss from what the user gave: a module, a class of losses, a callable, or a name of torch's."""
    if isinstance(loss, str):
        return _by_name(loss)
    if isinstance(loss, type):
        return _made(loss)
    if callable(loss):
        return loss
    raise UsageError(f"`loss` is {kind_of(loss)}: expected a torch loss, a callable or a name")


def _by_name(text: str) -> Callable[..., Any]:
    name = text
    for space in _SPACES:
        name = name.removeprefix(space)
    if name in FUNCTIONAL:
        found: Any = getattr(torch.nn.functional, name)
        return found  # type: ignore[no-any-return]
    classes = [one for one in dir(nn) if one.endswith("Loss")]
    if name in classes:
        return _made(getattr(nn, name))
    raise UsageError(
        f"unknown loss `{text}`: expected a loss of torch.nn or torch.nn.functional, or a target string",
        hint=near(name, [*classes, *FUNCTIONAL]) or "For example cross_entropy, MSELoss or train.py:loss_fn.",
    )


def _made(loss: type) -> Callable[..., Any]:
    try:
        made: Any = loss()
    except Exception as error:
        raise UsageError(
            f"the loss {loss.__name__} cannot be made without arguments: {brief(error)}",
            hint="Pass the loss itself, with its arguments.",
        ) from error
    if not callable(made):
        raise UsageError(f"`loss` is the class {loss.__name__}, whose objects cannot be called")
    return made  # type: ignore[no-any-return]


def loss_call(loss: object, labels: Any = None) -> LossCall:
    """How to apply a loss to the model's result.

    With `labels`, `loss(result, labels)`. Without, labels are made up: class indices where they fit,
    otherwise values like the output. A callable that takes one argument gets the result alone. A
    result with several tensors is passed whole to the user's callables, its main tensor to torch's;
    where that fails, its tensors one by one as the arguments are.
    """
    function = find_loss(loss)

    def attempts(result: Any, stand: StandFor) -> Iterator[Callable[[], Any]]:
        for args, kwargs in _arguments(function, result, labels, stand):
            yield functools.partial(function, *args, **kwargs)

    return LossCall(attempts, _modules_in(function))


def _arguments(
    function: Callable[..., Any], result: Any, labels: Any, stand: StandFor
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments to try, the likeliest first."""
    least, most = _arity(function)
    main = _main_tensor(result)
    # torch's own losses take a tensor; the user's know what the model returns
    wholes = [main] if _from_torch(function) else [result]
    if main is not result and not _from_torch(function):
        wholes.append(main)
    if least <= 1 and (labels is None or most < 2):
        yield from (((whole,), {}) for whole in wholes)
    if most < 2:
        return
    given = _carried(labels, stand)
    outputs = [main, *(tensor for _, tensor in output_tensors(result) if tensor is not main)]
    made = (one for output in outputs[:_MOST_OUTPUTS] for one in _made_up(output, stand))
    options = [given] if labels is not None else list(made)
    if labels is None and _from_torch(function) and not _takes_classes(function):
        options.sort(key=lambda one: one.shape != main.shape)
    for whole in wholes:
        yield from (((whole, one), {}) for one in options)
        if isinstance(given, list | tuple):
            yield (whole, *given), {}
        elif isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
            yield (whole,), dict(given)
    if labels is None and isinstance(result, Mapping):
        for pick in (0, -1):
            named = {key: list(_made_up(item, stand)) for key, item in result.items()}
            yield (result, {key: found[pick] for key, found in named.items() if found}), {}
    if isinstance(result, list | tuple) and len(result) > 1:
        yield from _spread(result, options, least)


def _spread(
    result: list[Any] | tuple[Any, ...], options: list[Any], least: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """`triplet(anchor, near, far)`, `vae_loss(reconstruction, x, mu, logvar)`, `gaussian_nll(mu, y, var)`."""
    if len(result) >= least:
        yield tuple(result), {}
    for one in reversed(options):  # values like the output rather than class indices
        yield (result[0], one, *result[1:]), {}
        yield (*result, one), {}


def _from_torch(function: Callable[..., Any]) -> bool:
    ours = getattr(function, "__module__", "") or ""
    return ours.startswith("torch.") or type(function).__module__.startswith("torch.")


def _takes_classes(function: Callable[..., Any]) -> bool:
    """Does a loss of torch's compare with class indices?"""
    name = getattr(function, "__name__", type(function).__name__).lower().replace("_", "")
    return name.startswith(("crossentropy", "nll", "multimargin"))


def _arity(function: Callable[..., Any]) -> tuple[int, float]:
    """How many positional arguments a loss needs, and how many it takes."""
    target = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return 2, 2
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [one for one in parameters if one.kind in plain]
    open_ended = any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters)
    least = sum(one.default is one.empty for one in positional)
    return least, float("inf") if open_ended else len(positional)


def _main_tensor(result: Any) -> Any:
    """The tensor that torch's losses get: the result, what has one of the usual names, or the first."""
    if isinstance(result, torch.Tensor):
        return result
    if isinstance(result, Mapping):
        named: Mapping[Any, Any] = result
    elif is_dataclass(result) and not isinstance(result, type):
        named = {one.name: getattr(result, one.name) for one in fields(result)}
    else:
        named = {name: getattr(result, name, None) for name in (*_MAIN, *getattr(result, "_fields", ()))}
    for name in _MAIN:
        if isinstance(named.get(name), torch.Tensor):
            return named[name]
    return next((tensor for _, tensor in output_tensors(result)), result)


def _carried(labels: Any, stand: StandFor) -> Any:
    if isinstance(labels, torch.Tensor):
        return stand(labels)
    if isinstance(labels, tuple) and hasattr(labels, "_fields"):
        return type(labels)(*(_carried(item, stand) for item in labels))
    if isinstance(labels, list | tuple):
        return type(labels)(_carried(item, stand) for item in labels)
    if isinstance(labels, dict):
        return {key: _carried(item, stand) for key, item in labels.items()}
    return labels


def _made_up(output: Any, stand: StandFor) -> Iterator[torch.Tensor]:
    """Labels that fit an output: class indices, values of its shape, one class index."""
    if not isinstance(output, torch.Tensor):
        return
    with torch._C.DisableTorchFunction():
        if output.dim() >= 2:
            yield stand(torch.zeros((output.shape[0], *output.shape[2:]), dtype=torch.int64))
        yield stand(torch.zeros(tuple(output.shape), dtype=output.dtype))
        if output.dim() > 2:
            yield stand(torch.zeros(tuple(output.shape[:-1]), dtype=torch.int64))
        if output.dim() == 1:
            yield stand(torch.zeros((), dtype=torch.int64))


def _modules_in(function: Any, depth: int = 0) -> tuple[nn.Module, ...]:
    """The modules that a loss runs: itself, or those that a function closes over, is bound to or names."""
    if isinstance(function, nn.Module):
        return (function,)
    if depth > 2:
        return ()
    held: list[Any] = []
    if isinstance(function, functools.partial):
        held = [function.func, *function.args, *function.keywords.values()]
    elif inspect.ismethod(function):
        held = [function.__self__, function.__func__]
    elif inspect.isfunction(function):
        held = [_cell(cell) for cell in function.__closure__ or ()]
        held += [function.__globals__.get(name) for name in function.__code__.co_names]
    elif not isinstance(function, type) and callable(function):
        held = list(getattr(function, "__dict__", {}).values())
    nested = (nn.Module, functools.partial)
    found: list[nn.Module] = []
    for one in held:
        if isinstance(one, nested) or inspect.isfunction(one) or inspect.ismethod(one):
            found += _modules_in(one, depth + 1)
        elif (
            depth == 0
            and hasattr(one, "__dict__")
            and not isinstance(one, type)
            and inspect.ismethod(function)
        ):
            found += [item for item in vars(one).values() if isinstance(item, nn.Module)]
    return tuple(dict.fromkeys(found))


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
