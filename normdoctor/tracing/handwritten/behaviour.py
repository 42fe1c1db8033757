"""How a module that holds a norm behaves: in train and eval mode, with gradients on and off."""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType

import msgspec
import torch
from torch import nn

from normdoctor.facts import HandwrittenNorm
from normdoctor.loading.state import Snapshot
from normdoctor.tracing.handwritten.flow import Flow, is_floating

#: (training flag, gradients recorded) and the words for it.
MODES = {
    "train": (True, True),
    "eval": (False, True),
    "train, no_grad": (True, False),
    "eval, no_grad": (False, False),
}
#: Modules with more values than this are no norms, and not run.
MOST_VALUES = 1 << 20
_SWITCHES = frozenset("training is_grad_enabled track_running_stats is_inference_mode_enabled".split())


@dataclass(frozen=True)
class Behaviour:
    """What was seen when the module ran by itself.

    `modes` says for each mode where the statistics come from: `batch` (a sample's output depends on
    the other samples), `sample`, `running` (each element by itself). `tracked` names the tensors that
    a training step changed, `tracked_unbiased` which variance went into them.
    """

    modes: dict[str, str]
    tracked: tuple[str, ...] = ()
    tracked_unbiased: bool | None = None

    def applied(self, norm: HandwrittenNorm) -> HandwrittenNorm:
        """The norm with what is known of its module's behaviour."""
        running = norm.running or bool(self.tracked)
        return msgspec.structs.replace(
            norm,
            modes=self.modes,
            running=running,
            tracked=tuple(f"{norm.module}.{name}" for name in self.tracked),
            tracked_unbiased=self.tracked_unbiased,
        )


def behaviour(flow: Flow, norm: HandwrittenNorm, module: nn.Module) -> Behaviour | None:
    """Run the module by itself in every mode; None where that cannot be done.

    Only modules whose code or tensors say that modes may matter are run, and only those that take the
    norm's input alone: the others behave as recorded, or cannot be told. The module's tensors are
    swapped for others meanwhile, as when it is recorded.
    """
    if not _may_switch(flow, norm, module):
        return Behaviour(dict.fromkeys(MODES, "batch" if 0 in norm.reduced else "sample"))
    if not norm.module or not _is_alone(flow, norm) or _values(module) > MOST_VALUES:
        return None
    shape = _shape(flow, norm)
    snapshot = Snapshot(list(module.modules()))
    try:
        found = {mode: _run(snapshot, module, shape, *flags) for mode, flags in MODES.items()}
        tracked = _tracked(snapshot, module, shape, norm)
    except Exception:
        return None
    finally:
        snapshot.restore()
    if any(one is None for one in found.values()):
        return None
    return Behaviour({mode: str(one) for mode, one in found.items()}, *tracked)


def _values(module: nn.Module) -> int:
    return sum(one.numel() for one in (*module.parameters(), *module.buffers()))


def _may_switch(flow: Flow, norm: HandwrittenNorm, module: nn.Module) -> bool:
    """Does one of the modules that compute it read a flag, or the norm's own module keep a buffer?"""
    if norm.frozen:
        return True
    modules = flow.recording.parts.modules
    scopes = {norm.module, *(flow.nodes[one].scope for one in norm.nodes)}
    kinds = {type(modules[scope].module) for scope in scopes if scope in modules}
    if len(kinds) < len(scopes) - 1 or any(_SWITCHES & _names(kind) for kind in kinds):
        return True
    own = vars(module)
    return bool(own["_buffers"]) or any(isinstance(one, torch.Tensor) for one in own.values())


def _names(kind: type[nn.Module]) -> set[str]:
    """The names in the code of a class's forward, and in that of its methods and functions called there."""
    forward = kind.forward
    code = getattr(forward, "__code__", None)
    if not isinstance(code, CodeType):
        return set(_SWITCHES)
    found = set(code.co_names)
    for name in code.co_names:
        called = getattr(forward, "__globals__", {}).get(name) or getattr(kind, name, None)
        inner = getattr(called, "__code__", None)
        found |= (
            set(inner.co_names) if isinstance(inner, CodeType) and called is not nn.Module.__call__ else set()
        )
    return found


def _is_alone(flow: Flow, norm: HandwrittenNorm) -> bool:
    """Does the module read no activation but the norm's input?"""
    prefix = f"{norm.module}."
    call = flow.nodes[norm.output].call
    for fact in flow.nodes:
        if (fact.scope != norm.module and not fact.scope.startswith(prefix)) or fact.call != call:
            continue
        for one in fact.inputs:
            source = flow.nodes[one]
            inside = source.scope == norm.module or source.scope.startswith(prefix)
            if not inside and one != norm.input:
                return False
    return flow.nodes[norm.input].scope != norm.module


def _shape(flow: Flow, norm: HandwrittenNorm) -> tuple[int, ...]:
    shape = flow.nodes[norm.input].shape
    kept = {size for name in flow.recording.parts.tensors.values() if name.module == norm.module
            for size in name.tensor.shape}  # fmt: skip
    return tuple(
        4 if place == 0 else size if size in kept else min(size, 5) for place, size in enumerate(shape)
    )


def _prepare(snapshot: Snapshot, module: nn.Module, *, training: bool) -> dict[str, torch.Tensor]:
    """Give the module fresh tensors in float64; returns those that are no parameters, by name."""
    snapshot.restore()
    generator = torch.Generator().manual_seed(1)

    def fresh(tensor: torch.Tensor) -> torch.Tensor:
        if not is_floating(tensor):
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        made = 1 + torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
        return nn.Parameter(made) if isinstance(tensor, nn.Parameter) else made

    snapshot.map_tensors(fresh)
    for one in module.modules():
        one.training = training
    return _state(module)


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    buffers = {name: one for name, one in module.named_buffers() if is_floating(one)}
    plain = {name: one for name, one in vars(module).items() if is_floating(one)}
    return buffers | plain


def _input(shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, dtype=torch.float64, generator=generator) * 0.8 + 0.5


def _run(
    snapshot: Snapshot, module: nn.Module, shape: tuple[int, ...], training: bool, grad: bool
) -> str | None:
    x = _input(shape)
    others, within = x.clone(), x.clone()
    others[1:] = others[1:] * 3 + 1
    within.view(-1)[0] += 3.0
    results = []
    for value in (x, others, within):
        _prepare(snapshot, module, training=training)
        with torch.set_grad_enabled(grad):
            result = module.forward(value)
        result = result[0] if isinstance(result, tuple) else result
        if not is_floating(result) or result.shape != x.shape:
            return None
        results.append(result.detach())
    if not torch.allclose(results[0][0], results[1][0], rtol=1e-9, atol=0):
        return "batch"
    moved = (results[2][0] - results[0][0]).abs() > 1e-9
    return "sample" if int(moved.sum()) > 1 else "running"


def _tracked(
    snapshot: Snapshot, module: nn.Module, shape: tuple[int, ...], norm: HandwrittenNorm
) -> tuple[tuple[str, ...], bool | None]:
    """The tensors that a training step changed, and whether the variance in them was unbiased."""
    x = _input(shape)
    before = {name: one.clone() for name, one in _prepare(snapshot, module, training=True).items()}
    module.forward(x)
    after = _state(module)
    changed = tuple(
        name for name, one in before.items()
        if name in after and after[name].shape == one.shape and not torch.equal(after[name].detach(), one)
    )  # fmt: skip
    count = 1
    for axis in norm.reduced:
        count *= shape[axis]
    if count < 2 or not norm.reduced:
        return changed, None
    biased = x.var(norm.reduced, correction=0, keepdim=True)
    for name in changed:
        for unbiased, value in ((False, biased), (True, biased * count / (count - 1))):
            if value.numel() == before[name].numel() > 1:
                gap = value.reshape(before[name].shape) - before[name]
                moved = after[name].detach() - before[name]
                rate = float((gap * moved).sum() / (gap * gap).sum())
                if float((moved - rate * gap).abs().max()) < 1e-9:
                    return changed, unbiased
    return changed, None
