"""What a probe sees of a forward: one torch call at a time, with its site and the axis of its units."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normdoctor.tracing.roles import kind_of_function

#: A site: the innermost module in whose forward a call stands, what it computes, and which of the calls
#: of that kind in one forward of the model it is there.
SiteKey = tuple[str, str, int]

#: Calls after which the units lie along the last axis, or along the axis behind the batch.
_LAST_AXIS = frozenset({"linear", "matmul", "addmm", "layer_norm", "rms_norm", "embedding", "bilinear"})
_CHANNEL_AXIS = frozenset({"batch_norm", "instance_norm", "group_norm"})

_UNBATCHED_RANK = {f"{kind}{n}d": n + 1 for kind in ("conv", "conv_transpose") for n in (1, 2, 3)}


class Call(NamedTuple):
    """One call of torch in a forward.

    Args:
        key: Its site; `key[1]` is the kind, in torch.nn.functional's words.
        role: As in `normdoctor.facts.Node`.
        args: Positional arguments, as they are after the call: an in-place call has changed its input.
        kwargs: Keyword arguments.
        output: The tensor that it returned.
        axis: The axis of `output` along which its units (channels or features) lie, counted from 0.
    """

    key: SiteKey
    role: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    axis: int

    @property
    def kind(self) -> str:
        """What is computed, in torch.nn.functional's words."""
        return self.key[1]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its position or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)


class Classifier:
    """Kind and role of functions, looked up once each."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[str, str]] = {}

    def __call__(self, function: Any) -> tuple[str, str]:
        """(kind, role) of a function of torch's."""
        known = self._known.get(function)
        if known is None:
            # `linear.default` is what exported programs call; functions of Python have no dot.
            name = getattr(function, "__name__", "").partition(".")[0]
            if name in ("__get__", "__set__"):
                name = ""
            known = ("relu6", "activation") if function is F.relu6 else kind_of_function(name)
            self._known[function] = known
        return known


def unit_axis(kind: str, output: Tensor, before: int) -> int:
    """The axis of the units behind a call: a layer's own, otherwise that of the layer before it.

    `before` and the result may be negative: -1 is the last axis whatever the rank.
    """
    if kind in _LAST_AXIS:
        return -1
    if kind in _CHANNEL_AXIS:
        return 1
    if kind in _UNBATCHED_RANK:
        return 0 if output.dim() == _UNBATCHED_RANK[kind] else 1
    return before


def site_name(key: SiteKey) -> str:
    """The name of a site among measurements: `layer1.0:relu`, `layer1.0:relu#1` for the second call."""
    path, kind, index = key
    return f"{path}:{kind}#{index}" if index else f"{path}:{kind}"


def version_of(tensor: Tensor) -> int:
    """What autograd counts of writes; tensors made in inference mode have no count."""
    return 0 if tensor.is_inference() else tensor._version


def observable(result: Any) -> bool:
    """Is it a tensor of floating point numbers with values that may be read here?"""
    return (
        isinstance(result, Tensor)
        and result.is_floating_point()
        and result.dim() > 0
        and not result.is_meta
        and not result.is_nested
        and result.layout == torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(result)
        and not distributed(result)
    )


def distributed(tensor: Tensor) -> bool:
    """Is it divided over ranks? Reading it would make them wait for each other."""
    return type(tensor) is not Tensor and hasattr(tensor, "to_local")
