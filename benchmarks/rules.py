"""What the rules cost beside the recording that they rest on, model by model, in one run.

    python benchmarks/rules.py timm [--every 3] [--values 0.5]   median over a zoo
    python benchmarks/rules.py depth                             a decoder of 12 to 192 layers

Recording is `tracing.recording` alone, warm; everything else that a check does with the model (facts, axes,
hand-written norms, weights, all rules) is the rest. Medians of three runs each.
"""

from __future__ import annotations

import argparse
import collections
import gc
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import ZOOS, Entry
from zoo import on_meta, one_line

from normdoctor.config import Settings
from normdoctor.graph import Graph
from normdoctor.loading.target import from_object
from normdoctor.running import Session, why_skipped
from normdoctor.tracing.examine import Request, examine
from normdoctor.tracing.inputs import as_example
from normdoctor.tracing.recording import record


def timed(model: nn.Module, inputs: object, repeats: int = 3) -> tuple[float, float, float, dict[str, float]]:
    """Seconds of recording, of facts beyond it, of all rules, and of each rule; medians."""
    recorded, examined, ruled = [], [], []
    each: dict[str, list[float]] = collections.defaultdict(list)
    for number in range(repeats + 1):
        start = time.perf_counter()
        record(model, as_example(inputs))
        middle = time.perf_counter()
        session = Session(Settings())
        request = Request(inputs=inputs, requirements=session.requirements())
        examination = examine(from_object(model), request)
        end = time.perf_counter()
        graph = Graph(examination.facts)
        for rule in session.settings.selection().rules:
            if rule.about_run or why_skipped(rule, examination.facts):
                continue
            begin = time.perf_counter()
            list(rule().check(graph))
            each[rule.code].append(time.perf_counter() - begin)
        if number:
            recorded.append(middle - start)
            examined.append(end - middle)
            ruled.append(time.perf_counter() - end)
    shares = {code: statistics.median(values[1:]) for code, values in each.items()}
    base = statistics.median(recorded)
    return base, statistics.median(examined) - base, statistics.median(ruled), shares


def over_zoo(zoo: str, every: int, values: float) -> None:
    """Print a line a model, and the median over them."""
    ratios, totals = [], collections.Counter[str]()
    for entry in list(ZOOS[zoo]())[::every]:
        try:
            model, inputs = _built(entry, values)
            base, facts, rules, shares = timed(model, inputs)
        except Exception as error:
            print(f"  {entry.name}: {one_line(error)}")
            continue
        ratios.append((facts + rules) / base)
        totals.update(shares)
        print(f"  {entry.name:28} recording {base:.3f} s, facts +{facts:.3f}, rules +{rules:.3f}", flush=True)
        gc.collect()
    print(f"{len(ratios)} models: (facts + rules) / recording: median {statistics.median(ratios):.2f}, "
          f"most {max(ratios):.2f}")  # fmt: skip
    whole = sum(totals.values())
    print("dearest rules:", ", ".join(f"{code} {t / whole:.0%}" for code, t in totals.most_common(8)))


def _built(entry: Entry, values: float) -> tuple[nn.Module, object]:
    model = on_meta(entry)
    inputs = entry.inputs(model)
    if sum(parameter.numel() * 4 for parameter in model.parameters()) / 2**30 <= values:
        model = entry.build()
    return model, inputs


class Block(nn.Module):
    """A pre-norm decoder block of GPT-2's make, small."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention and MLP, each behind its norm; x is (N, T, width)."""
        n, t, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(n, t, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.ln2(x))))


def depth() -> None:
    """Print milliseconds a layer for growing depth."""
    for layers in (12, 24, 48, 96, 192):
        model = nn.Sequential(*[Block() for _ in range(layers)], nn.LayerNorm(64), nn.Linear(64, 100))
        base, facts, rules, _ = timed(model, torch.randn(2, 16, 64))
        parts = ", ".join(f"{name} {1000 * t / layers:.2f}" for name, t in
                          (("recording", base), ("facts", facts), ("rules", rules)))  # fmt: skip
        print(f"{layers:4} layers, milliseconds a layer: {parts}", flush=True)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=[*sorted(ZOOS), "depth"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--values", type=float, default=0.5, help="with values up to so many GiB of weights")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "depth":
        depth()
    else:
        over_zoo(given.what, given.every, given.values)


if __name__ == "__main__":
    main()
