"""Which norm a layer is: by its class where torch's own forward runs, by what it computes otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize

from normdoctor import layers
from normdoctor.layers.batchnorm import _BatchNorm as _OwnBatchNorm
from normdoctor.layers.instancenorm import _InstanceNorm as _OwnInstanceNorm
from normdoctor.probing.sandbox import undisturbed
from normdoctor.rewriting.built import Tail
from normdoctor.rewriting.conversions.base import Refused
from normdoctor.rewriting.surgery import HOOKS

#: Family to the classes that it starts from, the special ones first; own layers derive from torch's.
_BASES: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
    ("masked", (layers.MaskedBatchNorm,)),
    ("renorm", (layers.BatchRenorm,)),
    ("ghost", (layers.GhostBatchNorm,)),
    ("sync", (nn.SyncBatchNorm,)),
    ("batch", (_BatchNorm,)),
    ("frozen", (layers.FrozenBatchNorm,)),
    ("layer2d", (layers.LayerNorm2d,)),
    ("layer", (nn.LayerNorm,)),
    ("group", (nn.GroupNorm,)),
    ("instance", (_InstanceNorm,)),
    ("rms", (nn.RMSNorm,)),
    ("response", (nn.LocalResponseNorm,)),
)
BATCH_LIKE = frozenset({"batch", "sync", "renorm", "ghost"})
FAMILIES = frozenset(name for name, _ in _BASES)

#: Forwards that are the norm and nothing else; ours may end with an activation, which is kept.
_PLAIN = frozenset(
    kind.forward
    for kind in (
        _BatchNorm, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, _InstanceNorm, nn.RMSNorm,
        nn.LocalResponseNorm, _OwnBatchNorm, _OwnInstanceNorm, layers.SyncBatchNorm, layers.BatchRenorm,
        layers.GhostBatchNorm, layers.MaskedBatchNorm, layers.FrozenBatchNorm, layers.LayerNorm,
        layers.LayerNorm2d, layers.GroupNorm, layers.RMSNorm, layers.LocalResponseNorm,
    )
)  # fmt: skip
#: What a subclass may define without being another layer.
_HARMLESS = frozenset(
    "__init__ __module__ __doc__ __qualname__ __annotations__ __dict__ __weakref__ __constants__ "
    "__parameters__ __orig_bases__ __static_attributes__ __firstlineno__ __annotate_func__ "
    "__annotations_cache__ __repr__ reset_parameters extra_repr _version __abstractmethods__ _abc_impl "
    "__classcell__ __slotnames__".split()
)
_FROZEN = frozenset({"weight", "bias", "running_mean", "running_var"})


@dataclass(frozen=True)
class Kind:
    """A family, and the names of the children that run behind the norm."""

    family: str
    tail: tuple[str, ...] = ()


def family_of(module: nn.Module) -> str | None:
    """The family that a layer's class belongs to, None for anything that is no norm."""
    for name, bases in _BASES:
        if isinstance(module, bases):
            return name
    plain = not module._parameters and set(module._buffers) >= _FROZEN and "eps" in vars(module)
    return "frozen" if plain and "frozen" in type(module).__name__.lower() else None


def identify(
    module: nn.Module,
    family: str,
    shapes: tuple[tuple[int, ...], ...] = (),
    known: dict[Any, Kind | None] | None = None,
) -> Kind:
    """Which norm this layer computes; raises `Refused` where it is more than its class says.

    `known` remembers what layers of a class with the same settings turned out to be.
    """
    kind = type(module)
    if parametrize.is_parametrized(module):
        raise Refused("its parameters are parametrized")
    if "forward" in vars(module):
        raise Refused(f"{kind.__name__} has a forward of its own, which would be lost")
    if any(type(value).__name__ == "DTensor" for value in module._parameters.values()):
        raise Refused("its parameters are sharded: convert before the model is sharded")
    if isinstance(module, Tail):
        return Kind(family, module._tail)
    if kind.forward in _PLAIN:
        own = _own_names(kind)
        if own:
            raise Refused(f"{kind.__name__} has `{sorted(own)[0]}` of its own, which would be lost")
        return Kind(family)
    known = {} if known is None else known
    alike = _settings(module)
    if alike not in known:
        known[alike] = _by_numbers(module, family, shapes)
    found = known[alike]
    if found is None:
        raise Refused(f"{kind.__name__} has a forward of its own, which would be lost")
    return found


def _own_names(kind: type[nn.Module]) -> set[str]:
    """What a subclass defines beyond torch's classes and ours."""
    found: set[str] = set()
    for base in kind.__mro__:
        if not base.__module__.startswith(("torch.nn.", "normdoctor.", "builtins")):
            found |= {
                name
                for name, value in vars(base).items()
                if name not in _HARMLESS and (callable(value) or isinstance(value, property | classmethod))
            }
    return found


def _settings(module: nn.Module) -> Any:
    """What the forward of a class may depend on, the number of channels aside."""
    plain = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, bool | float | str | None) and key != "training"
    }
    tensors = {
        key: None if value is None else value.dim()
        for key, value in (*module._parameters.items(), *module._buffers.items())
    }
    children = {name: repr(child) for name, child in module._modules.items()}
    return type(module), repr(plain), repr(tensors), repr(children)


def _by_numbers(module: nn.Module, family: str, shapes: tuple[tuple[int, ...], ...]) -> Kind | None:
    """The norm whose outputs, in both modes, and running statistics are those of the layer."""
    tails = [name for name in ("drop", "act") if isinstance(module._modules.get(name), nn.Module)]
    candidates = [Kind(family, tuple(tails))] if not set(module._modules) - set(tails) else []
    if family == "layer":
        candidates.append(Kind("layer2d", tuple(tails)))
    for kind in candidates:
        expected = _formula(kind, module)
        if expected is None:
            continue
        for shape in _trial_shapes(module, kind, shapes):
            with undisturbed(), torch.no_grad():
                if all(_agree(module, expected, shape, training) for training in (True, False)):
                    return kind
    return None


def _formula(kind: Kind, module: nn.Module) -> Callable[[Any, Tensor], Tensor] | None:
    names: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "batch": _BatchNorm.forward,
        "sync": _BatchNorm.forward,
        "layer": nn.LayerNorm.forward,
        "layer2d": lambda m, x: nn.LayerNorm.forward(m, x.movedim(1, -1)).movedim(-1, 1),
        "group": nn.GroupNorm.forward,
        "instance": _InstanceNorm.forward,
        "rms": nn.RMSNorm.forward,
        "frozen": _frozen,
    }
    core = names.get(kind.family)
    if core is None:
        return None

    def run(layer: Any, x: Tensor) -> Tensor:
        y = core(layer, x)
        for name in kind.tail:
            y = layer._modules[name](y)
        return y

    return run


def _frozen(layer: Any, x: Tensor) -> Tensor:
    return F.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps
    )


def _trial_shapes(module: Any, kind: Kind, shapes: tuple[tuple[int, ...], ...]) -> Iterator[tuple[int, ...]]:
    """Small inputs that the layer may take: those it was seen with come first, cut to size."""
    last = tuple(getattr(module, "normalized_shape", ()))
    channels = getattr(module, "num_features", None) or getattr(module, "num_channels", None)
    if channels is None and module._buffers.get("running_mean") is not None:
        channels = module.running_mean.numel()
    if kind.family == "layer2d" and len(last) == 1:
        yield (2, *last, 3, 4)
    elif last:
        yield (3, 2, *last)
    elif channels:
        for shape in shapes[:1]:
            if len(shape) >= 2:
                yield (3, channels, *(min(size, 5) for size in shape[2:]))
        for tail in ((3, 4), (), (5,), (2, 3, 2)):
            yield (3, channels, *tail)


def _agree(
    module: nn.Module, expected: Callable[[Any, Tensor], Tensor], shape: tuple[int, ...], training: bool
) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator, device="cpu") * 2 + 1
    try:
        one, other = _specimen(module, training), _specimen(module, training)
        torch.manual_seed(0)
        a = type(module).forward(one, x)
        torch.manual_seed(0)
        b = expected(other, x)
    except Exception:  # the user's code, on inputs that it was not written for
        return False
    if not isinstance(a, Tensor) or a.shape != b.shape or not torch.allclose(a, b, rtol=1e-7, atol=1e-9):
        return False
    pairs = zip(one.buffers(), other.buffers(), strict=True)
    return all(torch.allclose(p.double(), q.double(), rtol=1e-9) for p, q in pairs)


def _specimen(module: nn.Module, training: bool) -> nn.Module:
    """A copy in float64 on the CPU, without hooks, with values under which no two formulas agree."""
    memo: dict[int, Any] = {id(vars(module)[name]): type(vars(module)[name])() for name in HOOKS}
    made = copy.deepcopy(module, memo).to_empty(device="cpu").double()
    generator = torch.Generator("cpu").manual_seed(1)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64, device="cpu")
            tensor.copy_(values + 0.5)
        else:
            tensor.zero_()
    return made.train(training)
