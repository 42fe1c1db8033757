"""How far the outputs of a model moved: the same inputs before and after, in eval and train mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.loading.example import ExampleInputs
from normdoctor.probing.sandbox import sandbox
from normdoctor.tracing.recording import output_tensors

SEED = 0
#: An output whose values are smaller than this is held against it, not against its own size: a zero that
#: is rounded is no other output.
FLOOR = 1e-3
#: Share of integers (classes, masks) that rounding may change.
FLIPPED = 0.01
MODES = ("eval", "train")
#: Values that are kept of the output of one layer, and calls of it.
LAYER_VALUES, LAYER_CALLS = 4096, 4
#: Relative differences up to which two outputs are the same, by the coarsest type that takes part. A chain
#: of layers amplifies rounding (2**-24 in float32): what exceeds this is held against the effect of
#: rounding the parameters.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: Times the effect of rounding that a rewrite may move outputs, and the most that rounding is believed.
AMPLIFIED, LARGEST = 30.0, 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """`largest` is the greatest absolute difference, `relative` the norm of it over that of the output.

    Where there are several outputs, `relative` is that of all or of the one that moved most.

    `decisions` is the share of samples for which the class with the largest output is the same, where the
    first output looks like that of a classifier (N, classes); None elsewhere.
    """

    largest: float
    relative: float
    decisions: float | None = None

    def __str__(self) -> str:
        text = f"max {self.largest:.3g}, relative {self.relative:.3g}"
        return text if self.decisions is None else f"{text}, same class in {self.decisions:.1%}"


@dataclass
class Outputs:
    """What a model returned, by mode: tensors by name, or the text of the error; and what layers did."""

    modes: dict[str, dict[str, Tensor] | str] = field(default_factory=dict)
    layers: dict[str, list[Tensor]] = field(default_factory=dict)


def run(model: nn.Module, example: ExampleInputs, layers: dict[str, nn.Module] | None = None) -> Outputs:
    """The outputs in eval and train mode, from the same random numbers; the model is left as it was."""
    found = Outputs()
    for mode in MODES:
        with sandbox(model), torch.no_grad():
            model.train(mode == "train")
            if mode == "eval":
                _listen(layers or {}, found.layers)
            torch.manual_seed(SEED)
            torch.clear_autocast_cache()  # it holds casts of weights that were written since
            try:
                result = model(*example.args, **example.kwargs)
            except Exception as error:
                found.modes[mode] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            else:
                found.modes[mode] = {name: tensor.clone() for name, tensor in output_tensors(result)}
    return found


def _listen(layers: dict[str, nn.Module], into: dict[str, list[Tensor]]) -> None:
    """Keep a sample of what each layer returns; the sandbox takes the hooks off again."""
    for path, module in layers.items():
        kept = into.setdefault(path, [])

        def note(_: nn.Module, __: Any, output: Any, kept: list[Tensor] = kept) -> None:
            if isinstance(output, Tensor) and len(kept) < LAYER_CALLS:
                flat = output.detach().flatten()
                kept.append(flat[:: max(1, flat.numel() // LAYER_VALUES)].clone())

        module.register_forward_hook(note)


def compare(before: Outputs, after: Outputs) -> dict[str, Difference]:
    """The difference in every mode in which both ran."""
    found = {}
    for mode, old in before.modes.items():
        new = after.modes[mode]
        if isinstance(old, dict) and isinstance(new, dict):
            found[mode] = _difference(old, new)
    return found


def compare_layers(before: Outputs, after: Outputs) -> dict[str, Difference]:
    """The difference of what each layer returned."""
    found = {}
    for path, old in before.layers.items():
        new = after.layers.get(path, [])
        if old and len(old) == len(new):
            named = [{str(index): one for index, one in enumerate(side)} for side in (old, new)]
            whole = _difference(*named)
            found[path] = Difference(whole.largest, whole.relative)
    return found


def unequal(
    model: nn.Module,
    example: ExampleInputs,
    after: Outputs,
    differences: dict[str, Difference],
    modes: Iterable[str],
) -> str | None:
    """Say in which of the modes outputs that should be equal are not; None where all are.

    A difference is that of rounding where rounding the parameters once more moves the outputs as far.
    """
    allowed = max((TOLERANCE.get(kind, 0.0) for kind in _types(model, example)), default=1e-5)
    for mode in modes:
        found = differences.get(mode)
        if found is None or found.relative <= allowed:
            continue
        noise = _rounding(model, example, after, mode)
        if not found.relative <= max(allowed, min(AMPLIFIED * noise, LARGEST)):
            return (
                f"the outputs in {mode} mode differ by {found.relative:.3g} (relative), where rounding "
                f"explains {max(noise, allowed):.2g}"
            )
    return None


def _rounding(model: nn.Module, example: ExampleInputs, after: Outputs, mode: str) -> float:
    """How far outputs move when each parameter moves by one unit in its last place."""
    with sandbox(model), torch.no_grad():
        generator = torch.Generator("cpu").manual_seed(SEED)
        for parameter in (*model.parameters(), *model.buffers()):
            if parameter.is_floating_point() and not parameter.is_meta:
                signs = torch.randint(0, 2, parameter.shape, generator=generator, device="cpu") * 2 - 1
                parameter.mul_(1 + signs.to(parameter.device) * torch.finfo(parameter.dtype).eps)
        model.train(mode == "train")
        torch.manual_seed(SEED)
        try:
            result = model(*example.args, **example.kwargs)
        except Exception:  # it ran before: the effect of rounding is then without bounds
            return float("inf")
        moved = {name: tensor.clone() for name, tensor in output_tensors(result)}
    old = after.modes[mode]
    return _difference(old, moved).relative if isinstance(old, dict) else 0.0


def _types(model: nn.Module, example: ExampleInputs) -> set[torch.dtype]:
    tensors = (
        *model.parameters(),
        *model.buffers(),
        *(one for one in example.args if isinstance(one, Tensor)),
    )
    kinds = {one.device.type for one in tensors if not one.is_meta}
    cast = {torch.get_autocast_dtype(kind) for kind in kinds if torch.is_autocast_enabled(kind)}
    return {one.dtype for one in tensors if one.is_floating_point()} | cast


def _difference(old: dict[str, Tensor], new: dict[str, Tensor]) -> Difference:
    largest, error, size, worst = 0.0, 0.0, 0.0, 0.0
    decisions = None
    for name, a in old.items():
        b = new.get(name)
        if b is None or a.shape != b.shape:
            return Difference(float("inf"), float("inf"))
        if not a.numel() or a.is_meta:
            continue
        if not (a.is_floating_point() or a.is_complex()):
            flipped = (a != b).double().mean().item()
            worst = max(worst, flipped if flipped > FLIPPED else 0.0)
            continue
        wide = torch.complex128 if a.is_complex() else torch.float64
        if wide is torch.float64 and a.device.type == "mps":
            wide = torch.float32
        x, y = a.to(wide), b.to(wide)
        same = (x == y) | (x.isnan() & y.isnan())
        delta = torch.where(same, torch.zeros_like(x), x - y).abs()
        largest = max(largest, delta.nan_to_num(nan=float("inf")).max().item())
        moved = delta.square().sum().nan_to_num(nan=float("inf")).item()
        held = x.abs().square().nan_to_num(0.0, 0.0, 0.0).sum().item()
        worst = max(worst, (moved / max(held, a.numel() * FLOOR**2)) ** 0.5)
        error, size = error + moved, size + held
        if decisions is None and a.dim() == 2 and a.shape[1] > 1 and not a.is_complex():
            decisions = (a.argmax(1) == b.argmax(1)).double().mean().item()
    relative = (error / size) ** 0.5 if size else (0.0 if error == 0.0 else float("inf"))
    return Difference(largest, max(relative, worst), decisions)
