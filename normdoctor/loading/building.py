"""Building a model from a class or factory, with the defaults that its own file offers."""

from __future__ import annotations

import contextlib
import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from normdoctor.errors import TargetError

_CONFIG_NAMES = (
    "config",
    "cfg",
    "args",
    "opt",
    "opts",
    "options",
    "hparams",
    "conf",
    "params",
    "configs",
    "params",
)
_CONFIG_CLASS = re.compile(r".*(Config|Configs|Configuration|Args|Arguments|Opt|Options|HParams|Params)$")
_DOWNLOADS = {"pretrained": False, "weights": None, "weights_backbone": None}


@dataclass(frozen=True)
class Arguments:
    """The arguments that a call can be made with, and those that nothing is known for."""

    values: dict[str, Any] = field(default_factory=dict)
    shown: str = ""
    missing: tuple[str, ...] = ()


def arguments_for(
    factory: Callable[..., Any],
    namespace: dict[str, Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> Arguments:
    """Fill the required parameters that are not given from the configs of the factory's own file."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return Arguments()
    try:
        given = signature.bind_partial(*args, **(kwargs or {})).arguments
    except TypeError:  # the call itself will say what is wrong
        return Arguments()
    parameters = [item for item in signature.parameters.values() if item.name not in given]
    values: dict[str, Any] = {}
    shown, missing = [], []
    hints = _hints(factory)
    for parameter in parameters:
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        found = _default(parameter.name, hints.get(parameter.name), namespace)
        if found is None or parameter.kind is parameter.POSITIONAL_ONLY:
            missing.append(parameter.name)
        else:
            values[parameter.name], text = found
            shown.append(text)
    return Arguments(values, ", ".join(shown), tuple(missing))


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    function = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return typing.get_type_hints(function)
    except Exception:
        return dict(getattr(function, "__annotations__", {}))


def _default(name: str, annotation: Any, namespace: dict[str, Any]) -> tuple[Any, str] | None:
    """A value for one parameter: by its annotation, its name, or the one config class of the file."""
    own = namespace.get("__name__")
    if isinstance(annotation, str):
        annotation = namespace.get(annotation)
    if inspect.isclass(annotation) and annotation.__module__ == own and not issubclass(annotation, nn.Module):
        return _instance(annotation)
    value = namespace.get(name)
    if (
        name in namespace
        and not inspect.isclass(value)
        and not inspect.isroutine(value)
        and not inspect.ismodule(value)
    ):
        return value, name
    if name.lower() in _CONFIG_NAMES:
        classes = [
            value
            for key, value in namespace.items()
            if inspect.isclass(value)
            and value.__module__ == own
            and key == value.__name__
            and _CONFIG_CLASS.match(key)
        ]
        if len(classes) == 1:
            return _instance(classes[0])
    return None


def _instance(config: type) -> tuple[Any, str] | None:
    try:
        return config(), f"{config.__name__}()"
    except Exception:
        return None


def call(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a factory; one that would download weights is called again without them."""
    try:
        return factory(*args, **kwargs)
    except Exception as error:
        with contextlib.suppress(TypeError, ValueError):
            known = inspect.signature(factory).parameters
            offline = {
                name: value for name, value in _DOWNLOADS.items() if name in known and name not in kwargs
            }
            if offline and _is_download(error):
                return factory(*args, **kwargs, **offline)
        raise


def _is_download(error: BaseException | None) -> bool:
    from normdoctor.loading.stand_ins import NetworkBlockedError

    while error is not None:
        if isinstance(error, NetworkBlockedError) or "the network is off" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def cannot_build(name: str, missing: tuple[str, ...], file: str) -> TargetError:
    """The error for a class or factory with required arguments."""
    listed = ", ".join(f"`{item}`" for item in missing)
    first = f"{missing[0]}=..."
    short = name.rpartition(":")[2]
    return TargetError(
        f"{name} cannot be built without arguments: missing {listed}",
        hint=f"Give them as literals ({file}:{short}({first})), or name a factory without arguments.",
    )
