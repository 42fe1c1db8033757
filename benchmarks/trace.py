"""What recording costs, side by side in one process with its alternatives.

    python benchmarks/trace.py timm [--every 4] [--repeat 3]      recording against the bare forward
    python benchmarks/trace.py depth                              time against depth: transformer layers

For each model the bare forward (same inputs, on meta), the recording, `torch.fx.symbolic_trace` and
`torch.export` take turns; the median of several warm turns counts. Prints the ratios and their median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import ZOOS

import normdoctor
from normdoctor.loading.state import inventory
from normdoctor.tracing.inputs import as_example
from normdoctor.tracing.recording import record


def turn(action: Callable[[], Any]) -> float:
    """Seconds of one run; infinite when it raises."""
    start = time.perf_counter()
    try:
        action()
    except Exception:
        return float("inf")
    return time.perf_counter() - start


def measure(model: nn.Module, inputs: Any, repeat: int, *, export: bool) -> dict[str, float]:
    """Median seconds of each way to look at a model, the ways taking turns."""
    example = as_example(inputs)
    args = tuple(value.to("meta") for value in example.args)
    parts = inventory(model)
    ways: dict[str, Callable[[], Any]] = {
        "bare": lambda: model(*args, **example.kwargs),
        "record": lambda: record(model, example, parts=parts, carriers=("meta",)),
        "symbolic_trace": lambda: fx.symbolic_trace(model),
    }
    if export:
        ways["export"] = lambda: torch.export.export(model, args, dict(example.kwargs), strict=False)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    turn(ways["bare"])
    for index in range(repeat):
        for name, action in ways.items():
            if name == "export" and index:
                continue
            taken[name].append(turn(action))
    return {name: statistics.median(values) for name, values in taken.items()}


def families(zoo: str, every: int, repeat: int) -> None:
    """Print a row a model and the medians of the ratios."""
    ratios: dict[str, list[float]] = {"record": [], "symbolic_trace": [], "export": []}
    to_export: list[float] = []
    for entry in list(ZOOS[zoo]())[::every]:
        with torch.device("meta"):
            model = entry.build()
        inputs = entry.inputs(model)
        found = measure(model, inputs, repeat, export=True)
        if found["bare"] == float("inf"):
            model.eval()
            found = measure(model, inputs, repeat, export=True)
        line = f"{entry.name:36s} bare {found['bare']:.3f} s"
        for name, values in ratios.items():
            ratio = found[name] / found["bare"]
            if ratio < float("inf"):
                values.append(ratio)
            line += f"  {name} x{ratio:.2f}"
        if found["export"] < float("inf"):
            to_export.append(found["record"] / found["export"])
        print(line, flush=True)
    for name, values in ratios.items():
        if values:
            print(
                f"median {name}: x{statistics.median(values):.2f} of the bare forward ({len(values)} models)"
            )
    if to_export:
        print(f"median record / export: {statistics.median(to_export):.3f}")


def depth() -> None:
    """Time of `check` against the number of transformer layers: linear is the aim."""
    previous: tuple[int, float] | None = None
    for layers in (12, 24, 48, 96, 192):
        with torch.device("meta"):
            layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, norm_first=True)
            model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        inputs = torch.randn(2, 16, 768)
        normdoctor.check(model, inputs)
        seconds = min(turn(lambda: normdoctor.check(model, inputs)) for _ in range(3))  # noqa: B023
        growth = (
            ""
            if previous is None
            else f"  x{seconds / previous[1]:.2f} for x{layers / previous[0]:.0f} layers"
        )
        print(
            f"{layers:4d} layers: {seconds:.2f} s, {1000 * seconds / layers:.1f} ms a layer{growth}",
            flush=True,
        )
        previous = (layers, seconds)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=[*sorted(ZOOS), "depth"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "depth":
        depth()
    else:
        families(given.what, given.every, given.repeat)


if __name__ == "__main__":
    main()
