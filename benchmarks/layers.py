"""What the own layers cost, forward and backward, against torch.nn and a compiled torch.nn in one run.

    python benchmarks/layers.py                     # on the CPU; on a card where there is one
    python benchmarks/layers.py --only group --dtypes bf16 --compile none
    python benchmarks/layers.py --output            # writes benchmarks/results/layers_<device>.md

Sizes are of real nets. Each number is the median of several rounds, and in a round the contestants take
turns, so that a busy machine slows all of them alike. Memory that was freed stays with the process: on a CPU
the first touch of new pages costs more than a norm. On one CPU thread the time is the thread's own
(`--clock cpu`), which leaves out what other programs took.

The last column compares with a plain copy of the input on the same device: forward moves at least one read
and one write of it, backward two reads and a write, and the column is the time such a move takes in per cent
of the time that the layer took.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from normdoctor import layers as own

RESULTS = Path(__file__).parent / "results"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Timed = dict[str, float]


@dataclass(frozen=True)
class Size:
    """A norm of a real net: what it is called, its arguments and the shape of its input."""

    layer: str
    arguments: tuple[object, ...]
    net: str
    shape: tuple[int, ...]
    training: bool = True

    @property
    def name(self) -> str:
        """Name of the layer, and whether it is evaluated."""
        return self.layer if self.training else f"{self.layer} (eval)"


def sizes(batch: int) -> list[Size]:
    """The suite; `batch` is that of the image classifiers."""

    def batch_norm(channels: int, side: int) -> Size:
        return Size("BatchNorm2d", (channels,), "ResNet-50", (batch, channels, side, side))

    def group_norm(net: str, samples: int, channels: int, side: int) -> Size:
        return Size("GroupNorm", (32, channels), net, (samples, channels, side, side))

    def instance_norm(channels: int, side: int) -> Size:
        return Size("InstanceNorm3d", (channels,), "nnU-Net 3d", (2, channels, side, side, side))

    return [
        *(batch_norm(*one) for one in ((64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7))),
        *(replace(batch_norm(*one), training=False) for one in ((64, 56), (256, 56), (1024, 14))),
        *(group_norm("U-Net", 2, *one) for one in ((320, 64), (640, 32), (1280, 16))),
        *(group_norm("VAE", 1, *one) for one in ((512, 64), (256, 128), (128, 256))),
        *(instance_norm(*one) for one in ((32, 64), (64, 32), (128, 16), (320, 8))),
        Size("LayerNorm", (768,), "BERT", (8, 512, 768)),
        Size("LayerNorm", (768,), "ViT-B/16", (8, 197, 768)),
        Size("LayerNorm", (1024,), "BERT large", (16, 512, 1024)),
        Size("RMSNorm", (2048,), "Llama 1B", (2, 1024, 2048)),
        Size("RMSNorm", (4096,), "Llama 8B", (1, 2048, 4096)),
        Size("RMSNorm", (1024,), "Llama-like", (16, 1024, 1024)),
    ]


class Clock:
    """Times a call on a device, in milliseconds."""

    def __init__(self, device: torch.device, kind: str) -> None:
        """Choose what is read: the time of the thread or of the wall; on a card, its own events."""
        self.device = device
        self.now = {"cpu": time.thread_time, "wall": time.perf_counter}[kind]
        # More than the cache of any card holds: what a call reads is cold then, as in a net.
        self.flush = torch.empty(1 << 28, dtype=torch.int8, device=device) if device.type == "cuda" else None

    def __call__(self, function: Callable[[], object], times: int) -> float:
        """Milliseconds of one of so many calls in a row."""
        if self.flush is not None:
            return self._on_card(function, times)
        start = self.now()
        for _ in range(times):
            # Kept until the next one is there, as nets keep what backward needs. Otherwise the allocator
            # gives a layer that keeps nothing else the same, cached, memory again, and only that layer.
            _kept = function()
        return (self.now() - start) / times * 1e3

    def _on_card(self, function: Callable[[], object], times: int) -> float:
        assert self.flush is not None
        found = []
        for _ in range(times):
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end))
        return statistics.median(found)


def race(contestants: dict[str, Callable[[], object]], clock: Clock, rounds: int, span: float) -> Timed:
    """Medians of all, who take turns; each turn lasts about `span` milliseconds."""
    times = {}
    for name, function in contestants.items():
        function()
        function()
        times[name] = max(1, min(200, int(span / max(clock(function, 1), 1e-3))))
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, function in contestants.items():
            found[name].append(clock(function, times[name]))
    return {name: statistics.median(values) for name, values in found.items()}


def layouts(shape: Sequence[int]) -> Iterator[tuple[str, torch.memory_format]]:
    """The memory formats that an input of this shape can have."""
    yield "contiguous", torch.contiguous_format
    if len(shape) == 4:
        yield "channels_last", torch.channels_last
    if len(shape) == 5:
        yield "channels_last", torch.channels_last_3d


def backward_of(model: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], object]:
    """The backward of one forward, which can be called again and again."""
    wanted = [x, *model.parameters()]
    y = model(x)
    return lambda: torch.autograd.grad(y, wanted, grad, retain_graph=True)


def measure(
    size: Size, layout: torch.memory_format, dtype: torch.dtype, compiled: bool, settings: Settings
) -> dict[str, Timed]:
    """Times of all contestants, by the pass."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size.shape, generator=generator).to(settings.device, dtype)
    x = x.contiguous(memory_format=layout).requires_grad_()
    grad = torch.randn_like(x)
    keywords = {"affine": True} if size.layer.startswith("Instance") else {}
    # Parameters of BatchNorm stay in float32, as autocast leaves them.
    parameters = torch.float32 if size.layer.startswith("Batch") else dtype
    made = {
        name: getattr(module, size.layer)(*size.arguments, **keywords)
        .to(settings.device, parameters)
        .train(size.training)
        for name, module in (("torch", nn), ("own", own))
    }
    if compiled:
        torch._dynamo.reset()
        made["compile"] = torch.compile(copy.deepcopy(made["torch"]), dynamic=False)
    target = torch.empty_like(x)
    copied = x.detach()
    plain = {"copy": lambda: target.copy_(copied)}
    forward = {name: lambda model=model: model(x) for name, model in made.items()}
    found = {"forward": race({**plain, **forward}, settings.clock, settings.rounds, settings.span)}
    # Not before: a forward of BatchNorm writes to what the backward of an earlier one needs.
    backward = {name: backward_of(model, x, grad) for name, model in made.items()}
    found["backward"] = race({**plain, **backward}, settings.clock, settings.rounds, settings.span)
    return found


@dataclass(frozen=True)
class Settings:
    """What holds for the whole run."""

    device: torch.device
    clock: Clock
    rounds: int
    span: float


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    size: Size
    layout: str
    dtype: str
    which: str
    times: Timed

    def ratio(self, other: str) -> float | None:
        """Time of the own layer over that of another."""
        return self.times["own"] / self.times[other] if other in self.times else None

    @property
    def of_copy(self) -> float:
        """The least time that memory allows over the time of the own layer."""
        moved = 1.0 if self.which == "forward" else 1.5
        return moved * self.times["copy"] / self.times["own"]

    def cells(self) -> list[str]:
        """The line as text."""
        shape = "x".join(str(one) for one in self.size.shape)
        names = ("torch", "compile", "own")
        times = [f"{self.times[name]:.3f}" if name in self.times else "" for name in names]
        ratios = ["" if one is None else f"{one:.2f}" for one in (self.ratio("torch"), self.ratio("compile"))]
        where = [self.size.name, self.size.net, shape, self.layout, self.dtype, self.which]
        return [*where, *times, *ratios, f"{100 * self.of_copy:.0f} %"]


HEAD = "layer net shape layout dtype pass torch compile own own/torch own/compile of-copy".split()


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(statistics.fmean(math.log(one) for one in ratios))


def summary(rows: Sequence[Row]) -> list[list[str]]:
    """Geometric mean and worst ratio of each layer, layout, type and pass, and of all."""
    lines = []
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.size.name, row.layout, row.dtype, row.which), []).append(row)
    for key, found in (*groups.items(), (("all", "", "", ""), list(rows))):
        against = [one for one in (row.ratio("torch") for row in found) if one is not None]
        compiled = [one for one in (row.ratio("compile") for row in found) if one is not None]
        last = f"{mean(compiled):.2f}" if compiled else ""
        lines.append([*key, f"{mean(against):.2f}", f"{max(against):.2f}", last])
    return lines


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def keep_memory() -> None:
    """Have glibc keep what is freed: M_MMAP_MAX 0, M_TRIM_THRESHOLD without end."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-4, 0)
            libc.mallopt(-1, 2**31 - 1)


def compiles(device: torch.device) -> bool:
    """Does torch.compile find the compiler it needs?"""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(64, device=device))
    except Exception as error:
        print(f"torch.compile is left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def card(device: torch.device) -> str:
    """Name of the device, for the file and the head of the table."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def report(rows: Sequence[Row], arguments: argparse.Namespace, device: torch.device) -> str:
    """The whole text."""
    threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    command = "python benchmarks/layers.py " + " ".join(sys.argv[1:])
    head = ["layer", "layout", "dtype", "pass", "own/torch", "worst", "own/compile"]
    return f"""# Layers: own against torch.nn on {card(device)}

`{command.strip()}`, torch {torch.__version__}{threads}, time of `{arguments.clock}`, medians of \
{arguments.rounds} interleaved rounds. Below 1 the own layer is the faster one.

## Geometric means

{table(head, summary(rows))}

## All sizes

Times in milliseconds; `of-copy` is the least time that memory allows, in per cent of the own layer's.

{table(HEAD, [row.cells() for row in rows])}
"""


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    card_there = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if card_there else "cpu")
    parser.add_argument("--only", default="", help="layers whose name holds this, in any case")
    parser.add_argument("--dtypes", default="fp32,bf16,fp16" if card_there else "fp32,bf16")
    parser.add_argument("--batch", type=int, default=64 if card_there else 8, help="of the image classifiers")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--clock", choices=("cpu", "wall"), default=None, help="cpu for one thread, else wall"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--span", type=float, default=20.0, help="milliseconds of a turn")
    parser.add_argument("--compile", choices=("all", "first", "none"), default="all", help="sizes of a layer")
    parser.add_argument("--output", action="store_true", help="write the table to benchmarks/results")
    return parser.parse_args()


def run(arguments: argparse.Namespace, device: torch.device) -> list[Row]:
    """Measure everything that was asked for."""
    settings = Settings(device, Clock(device, arguments.clock), arguments.rounds, arguments.span)
    works = arguments.compile != "none" and compiles(device)
    rows: list[Row] = []
    seen: set[tuple[str, str, str]] = set()
    for size in sizes(arguments.batch):
        if arguments.only.lower() not in size.name.lower():
            continue
        for layout, memory_format in layouts(size.shape):
            for dtype in arguments.dtypes.split(","):
                key = (size.name, layout, dtype)
                compiled = works and (arguments.compile == "all" or key not in seen)
                seen.add(key)
                found = measure(size, memory_format, DTYPES[dtype], compiled, settings)
                for which, times in found.items():
                    rows.append(Row(size, layout, dtype, which, times))
                    print("  ".join(rows[-1].cells()), flush=True)
    return rows


def main() -> None:
    """Measure, print, and write if asked to."""
    arguments = parse()
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_memory()
        torch.set_num_threads(arguments.threads)
    if arguments.clock is None:
        arguments.clock = "cpu" if device.type == "cpu" and arguments.threads == 1 else "wall"
    rows = run(arguments, device)
    text = report(rows, arguments, device)
    print(text.split("## All sizes")[0])
    if arguments.output:
        name = card(device).lower().replace(" ", "_")
        (RESULTS / f"layers_{name}.md").write_text(text)


if __name__ == "__main__":
    main()
