"""Measure how many inputs of norms have all their axes labelled, and what the labels cost.

    python benchmarks/axes.py [torchvision timm transformers] [--only REGEX] [--every 4]

By default: torchvision's classification models, every fourth family of timm, and fifteen types of
transformers. An axis of length one counts as labelled in the first share and not in the second. The
cost is the time of the analysis over that of loading, recording and extracting, without it.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import ZOOS, Entry
from zoo import on_meta

from normdoctor.errors import NormDoctorError
from normdoctor.facts import Facts
from normdoctor.graph import Graph
from normdoctor.loading.target import from_object
from normdoctor.tracing.axes import with_axes
from normdoctor.tracing.examine import Request, examine

TRANSFORMERS = (
    "albert bart beit bert clip convnext detr distilbert gpt2 mistral roberta segformer swin t5 wav2vec2"
).split()


@dataclass
class Share:
    """Norm inputs of one model or zoo: all, those labelled, those labelled with length one counted too."""

    norms: int = 0
    labelled: int = 0
    strictly: int = 0
    analysis: float = 0.0
    recording: float = 0.0

    def add(self, other: Share) -> None:
        """Count another in."""
        self.norms += other.norms
        self.labelled += other.labelled
        self.strictly += other.strictly
        self.analysis += other.analysis
        self.recording += other.recording

    def row(self, name: str) -> list[object]:
        """A row of the table."""
        shares = [
            f"{100 * part / self.norms:.1f} %" if self.norms else ""
            for part in (self.labelled, self.strictly)
        ]
        return [name, self.norms, *shares, f"{100 * self.analysis / max(self.recording, 1e-9):.1f} %"]


def measure(entry: Entry) -> tuple[Share, list[str]]:
    """One model, and the norms whose input has an axis without a label."""
    model = on_meta(entry)
    inputs = entry.inputs(model)
    start = time.perf_counter()
    facts = examine(from_object(model, name=entry.name), Request(inputs=inputs)).facts
    whole = time.perf_counter() - start
    bare = msgspec.structs.replace(
        facts, nodes=tuple(msgspec.structs.replace(node, axes=()) for node in facts.nodes)
    )
    start = time.perf_counter()
    with_axes(bare)
    analysis = time.perf_counter() - start
    share, missing = count(facts)
    share.analysis, share.recording = analysis, whole - analysis
    return share, missing


def count(facts: Facts) -> tuple[Share, list[str]]:
    """Norm inputs with and without labels."""
    share = Share()
    missing = []
    for norm in Graph(facts).norms:
        if norm.input is None:
            continue
        node = norm.input
        known = node.axes or ("",) * len(node.shape)
        share.norms += 1
        share.strictly += all(known)
        if all(label or size == 1 for label, size in zip(known, node.shape, strict=False)):
            share.labelled += 1
        else:
            missing.append(f"{norm.kind} {norm.output.module or norm.output.scope} {node.shape} {known}")
    return share, missing


def chosen(zoo: str, only: str, every: int) -> Iterator[Entry]:
    """The models of a zoo that are measured."""
    entries = (entry for entry in ZOOS[zoo]() if re.fullmatch(only, entry.name))
    if zoo == "timm":
        return itertools.islice(entries, 0, None, every)
    if zoo == "transformers" and only == ".*":
        return (entry for entry in entries if entry.name in TRANSFORMERS)
    return entries


def main() -> None:
    """Measure, and print a row a zoo and every model with a gap."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoos", nargs="*", default=["torchvision", "timm", "transformers"])
    parser.add_argument("--only", default=".*")
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    rows = []
    for zoo in options.zoos:
        total = Share()
        for entry in chosen(zoo, options.only, options.every):
            try:
                share, missing = measure(entry)
            except (NormDoctorError, RuntimeError, ValueError, TypeError, OSError) as error:
                print(f"{entry.name}: {type(error).__name__}: {str(error)[:100]}", flush=True)
                continue
            total.add(share)
            if missing:
                print(
                    f"{entry.name}: {len(missing)} of {share.norms} with unknown axes: {missing[0]}",
                    flush=True,
                )
        rows.append(total.row(zoo))
    headers = ["zoo", "norm inputs", "all axes labelled", "length one too", "cost of recording"]
    print(tabulate(rows, headers, disable_numparse=True))


if __name__ == "__main__":
    main()
