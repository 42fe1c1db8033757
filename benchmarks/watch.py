"""What a watch costs: bare steps and watched ones in turns, beside other monitors on the same model.

    python benchmarks/watch.py [--pairs 20] [--threads 2] [--peers FOLDER] [--device cpu] [--output FILE]

A step is forward, backward and optimizer of torchvision's ResNet-50 on 16 images of 96 x 96 or of timm's
ViT-S on 16 of 160 x 160. Each pair is one bare step and one watched step of the same model on the same batch,
in alternating order; the figure is the median of the ratios. Of `every=50` the mean of one period counts as
well: one observed step and 49 others. Synchronizations are calls that hand a value to the host, counted
by a dispatch mode in one more observed step; what reads copies that have arrived is none.

Peers (torch-audit, torchlens, wandb) are measured where they can be imported, also from a folder given by
`--peers` (`pip install --no-deps --target FOLDER torch-audit torchlens wandb` and what they ask for besides
torch), and left out otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import _shim

import normdoctor

WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "_unique", "masked_select")


class Waits(TorchDispatchMode):
    """Counts calls that make the host wait for a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(part in str(func) for part in WAITS)
        return func(*args, **(kwargs or {}))


def resnet50() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-50 on 16 small images."""
    _shim()
    models = importlib.import_module("torchvision.models")
    return models.resnet50(), torch.randn(16, 3, 96, 96)


def vit_s() -> tuple[nn.Module, torch.Tensor]:
    """ViT-S/16 on 16 images of 160 x 160: 101 tokens each."""
    _shim()
    timm = importlib.import_module("timm")
    return timm.create_model("vit_small_patch16_224", img_size=160), torch.randn(16, 3, 160, 160)


class Training:
    """A model, its optimizer and one batch."""

    def __init__(self, build: Callable[[], tuple[nn.Module, torch.Tensor]], device: str) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = build()
        self.model.to(device)
        self.inputs = self.inputs.to(device)
        self.labels = torch.randint(1000, (len(self.inputs),), device=device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.device = device

    def step(self, after: Callable[[torch.Tensor], None] | None = None) -> float:
        """Seconds of one step."""
        self._wait()
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.inputs), self.labels)
        loss.backward()
        self.optimizer.step()
        if after is not None:
            after(loss)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


class Normdoctor:
    """A watch that is switched on for one step at a time: `seen` says whether that step is observed."""

    def __init__(self, training: Training, *, seen: bool) -> None:
        self.watch = normdoctor.watch(training.model, training.optimizer, every=10**9, on_finding="ignore")
        self.training = training
        self.seen = seen

    @contextlib.contextmanager
    def on(self) -> Iterator[Callable[[torch.Tensor], None]]:
        """One step: the hooks that are put on and taken off count, as they do at every observed step."""
        watch = self.watch
        watch.every = 10**9
        with watch:
            if not self.seen:  # the first step always is
                self.training.step(watch.step)
            yield watch.step


def pairs(training: Training, monitor: Any, count: int) -> list[float]:
    """Watched over bare, for each pair."""
    found = []
    for index in range(count):
        taken = {}
        for watched in (index % 2 == 0, index % 2 == 1):
            if watched:
                start = time.perf_counter()
                with monitor.on() as after:
                    inside = training.step(after)
                    around = time.perf_counter() - start
                # Of a step that is not observed the watch does nothing before and after.
                taken[True] = around if getattr(monitor, "seen", True) else inside
            else:
                taken[False] = training.step()
        found.append(taken[True] / taken[False])
    return found


def waits(training: Training, monitor: Any) -> int:
    """Synchronizations of one watched step, less those of a bare one."""
    counts = []
    for watched in (False, True):
        with contextlib.ExitStack() as stack:
            after = stack.enter_context(monitor.on()) if watched else None
            counter = stack.enter_context(Waits())
            training.step(after)
            counts.append(counter.count)
    return counts[1] - counts[0]


class TorchAudit:
    """torch-audit with a look at every step: its validators that run in a training, without static ones."""

    def __init__(self, training: Training) -> None:
        module = importlib.import_module("torch_audit")
        self.auditor = module.Auditor(training.model, optimizer=training.optimizer, every_n_steps=1)

    @contextlib.contextmanager
    def on(self) -> Iterator[Callable[[torch.Tensor], None]]:
        """One audited step."""
        self.auditor.autopatch(run_static=False, run_init=False)
        try:
            yield lambda loss: None
        finally:
            self.auditor.unpatch()


class Wandb:
    """wandb.watch(log="all", log_freq=1), without a network."""

    def __init__(self, training: Training) -> None:
        wandb = importlib.import_module("wandb")
        self.model = training.model
        folder = tempfile.mkdtemp()
        self.run = wandb.init(mode="offline", settings=wandb.Settings(silent=True), dir=folder)

    @contextlib.contextmanager
    def on(self) -> Iterator[Callable[[torch.Tensor], None]]:
        """One watched step."""
        self.run.watch(self.model, log="all", log_freq=1)
        try:
            yield lambda loss: self.run.log({"loss": 0.0})
        finally:
            self.run.unwatch(self.model)


class Torchlens:
    """torchlens, whose trace of the forward is taken beside each step, as it says it is meant."""

    def __init__(self, training: Training) -> None:
        self.torchlens = importlib.import_module("torchlens")
        self.training = training

    @contextlib.contextmanager
    def on(self) -> Iterator[Callable[[torch.Tensor], None]]:
        """One step and one traced forward."""
        lens, training = self.torchlens, self.training
        yield lambda loss: lens.trace(training.model, training.inputs)


PEERS = {"torch-audit, every step": TorchAudit, "wandb.watch, every step": Wandb, "torchlens": Torchlens}


def rows(name: str, build: Any, args: argparse.Namespace) -> Iterator[str]:
    """The lines of one model's table."""
    training = Training(build, args.device)
    for _ in range(3):
        bare = training.step()
    noise = [training.step() / training.step() for _ in range(args.pairs)]
    yield f"| {name} | bare | {statistics.median(noise):.3f} | 0 | a step takes {bare * 1e3:.0f} ms |"
    ratios = {}
    for seen in (True, False):
        monitor = Normdoctor(training, seen=seen)
        pairs(training, monitor, 2)
        ratios[seen] = statistics.median(pairs(training, monitor, args.pairs))
    count = waits(training, Normdoctor(training, seen=True))
    for every in (1, 10, 50):
        mean = (ratios[True] + (every - 1) * ratios[False]) / every
        said = "median of observed steps" if every == 1 else "mean of one period of medians"
        yield f"| {name} | normdoctor, every={every} | {mean:.3f} | {count if every == 1 else 0} | {said} |"
    yield f"| {name} | normdoctor, a step that is not observed | {ratios[False]:.3f} | 0 | |"
    for label, peer in PEERS.items():
        try:
            monitor = peer(training)
            peer_ratio = statistics.median(pairs(training, monitor, max(3, args.pairs // 4)))
            yield f"| {name} | {label} | {peer_ratio:.2f} | {waits(training, monitor)} | |"
        except Exception as error:
            print(f"{label} left out: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)


def main() -> None:
    """Print the table, and keep it where `--output` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="resnet50 vit_s")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peers is not None:
        sys.path.append(str(args.peers))
    lines = [
        f"Watched over bare steps, median of {args.pairs} interleaved pairs, torch {torch.__version__}, "
        f"{args.device}, {args.threads} threads; ResNet-50 on 16 x 3 x 96 x 96, ViT-S on 16 x 3 x 160 x 160.",
        "",
        "| model | monitor | x bare | synchronizations | |",
        "|---|---|--:|--:|---|",
    ]
    for name in args.only.split():
        for line in rows(name, globals()[name], args):
            print(line, flush=True)
            lines.append(line)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
