"""How far the outputs of a model moved: the same inputs before and after, in eval and train mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.errors import TraceError
from normdoctor.loading.example import ExampleInputs
from normdoctor.probing.sandbox import sandbox
from normdoctor.tracing.recording import output_tensors

#: The outputs of one model by mode: tensors by name, or the text of the error that it raised.
Outputs = dict[str, dict[str, Tensor] | str]

SEED = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """`largest` is the greatest absolute difference, `relative` the norm of it over that of the output."""

    largest: float
    relative: float

    def __str__(self) -> str:
        return f"max {self.largest:.3g}, relative {self.relative:.3g}"


def run(model: nn.Module, example: ExampleInputs) -> Outputs:
    """The outputs in eval and train mode, from the same random numbers; the model is left as it was."""
    found: Outputs = {}
    for mode in ("eval", "train"):
        with sandbox(model), torch.no_grad():
            model.train(mode == "train")
            torch.manual_seed(SEED)
            try:
                result = model(*example.args, **example.kwargs)
            except Exception as error:
                found[mode] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            else:
                found[mode] = {name: tensor.clone() for name, tensor in output_tensors(result)}
    return found


def compare(before: Outputs, after: Outputs) -> dict[str, Difference]:
    """The difference in every mode in which both ran."""
    found = {}
    for mode, old in before.items():
        new = after[mode]
        if isinstance(old, dict) and isinstance(new, dict):
            found[mode] = _difference(old, new)
    return found


def input_shapes(
    model: nn.Module, wanted: dict[str, nn.Module], example: ExampleInputs
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shapes of the first argument of each module in `wanted`, over one forward in eval mode."""
    shapes: dict[str, list[tuple[int, ...]]] = {path: [] for path in wanted}
    with sandbox(model), torch.no_grad():
        for path, module in wanted.items():

            def note(_: nn.Module, args: tuple[Any, ...], path: str = path) -> None:
                shapes[path].extend(tuple(arg.shape) for arg in args[:1])

            module.register_forward_pre_hook(note)  # the sandbox takes it off again
        model.eval()
        try:
            model(*example.args, **example.kwargs)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            raise TraceError(f"the model raised {type(error).__name__} on the inputs: {first}") from error
    return {path: tuple(found) for path, found in shapes.items()}


def _difference(old: dict[str, Tensor], new: dict[str, Tensor]) -> Difference:
    largest, error, size = 0.0, 0.0, 0.0
    for name, a in old.items():
        b = new.get(name)
        if b is None or a.shape != b.shape:
            return Difference(float("inf"), float("inf"))
        if a.numel() and (a.is_floating_point() or a.is_complex()):
            wide = torch.complex128 if a.is_complex() else torch.float64
            delta = (a.to(wide) - b.to(wide)).abs()
            largest = max(largest, delta.max().item())
            error += delta.square().sum().item()
            size += a.to(wide).abs().square().sum().item()
    relative = (error / size) ** 0.5 if size else (0.0 if error == 0.0 else float("inf"))
    return Difference(largest, relative)
