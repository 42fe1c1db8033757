"""What normdoctor says of models that nobody of this project wrote, against the verdicts of a reader.

    python benchmarks/findings.py timm torchvision transformers pytorchcv [--values GiB] [--write]
    python benchmarks/findings.py --summary
    python benchmarks/findings.py --peer

A sweep examines every model of the zoos (with values where its weights take at most `--values` GiB, so
that rules about weights run too, otherwise on meta) and lists the findings. `--write` keeps them in
`results/zoo_findings.csv`, one row a model and rule; otherwise the run is compared with that file, and
what differs is printed (exit code 1). `results/zoo_verdicts.csv` holds what a reader says of each
warning and error: `true`, `by design` (it is so, and meant) or `false`. `--summary` prints findings per
rule and level, the share of models with a disputed warning, and what has no verdict yet. `--peer` counts
what torch-audit, if it is installed, reports on 18 torchvision models beside our count.
"""

from __future__ import annotations

import argparse
import collections
import csv
import fnmatch
import gc
import importlib
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import ZOOS, Entry
from zoo import forget_cached, on_meta, one_line

from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError
from normdoctor.findings import masked
from normdoctor.loading.target import from_object
from normdoctor.report import Report
from normdoctor.running import Session
from normdoctor.tracing.examine import Request, examine

RESULTS = Path(__file__).resolve().parent / "results"
GOLDEN, VERDICTS = RESULTS / "zoo_findings.csv", RESULTS / "zoo_verdicts.csv"
COLUMNS = ("zoo", "model", "code", "severity", "confidence", "findings", "sites", "modules", "message")
#: One torchvision model of each family.
PEER_MODELS = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t "
    "mnasnet1_0 mobilenet_v2 mobilenet_v3_small regnet_y_400mf resnet50 shufflenet_v2_x1_0 squeezenet1_1 "
    "swin_t vgg16 vit_b_16"
).split()


def examined(entry: Entry, values: float) -> Report:
    """Check one model as a user would who has built it."""
    model = on_meta(entry)
    inputs = entry.inputs(model)
    size = sum(parameter.numel() * 4 for parameter in model.parameters()) / 2**30
    if size <= values:
        forget_cached()
        torch.manual_seed(0)
        model = entry.build()
    session = Session(Settings())
    request = Request(inputs=inputs, requirements=session.requirements())
    examination = examine(from_object(model, name=entry.name), request)
    if examination.error is not None:
        raise examination.error
    session.check(examination.facts)
    return session.report()


def rows_of(entry: Entry, report: Report) -> list[dict[str, str]]:
    """One row for each rule that spoke, at each level."""
    found: dict[tuple[str, str], list[Any]] = {}
    for finding in report.findings:
        found.setdefault((finding.code, str(finding.severity)), []).append(finding)
    return [
        {
            "zoo": entry.zoo,
            "model": entry.name,
            "code": code,
            "severity": severity,
            "confidence": str(group[0].confidence),
            "findings": str(len(group)),
            "sites": str(sum(len(one.modules) for one in group)),
            "modules": masked(group[0].modules),
            "message": group[0].message[:160],
        }
        for (code, severity), group in sorted(found.items())
    ]


def sweep(given: argparse.Namespace) -> tuple[list[dict[str, str]], list[str], list[tuple[str, str]]]:
    """Rows, what could not be examined, and the models that were."""
    rows: list[dict[str, str]] = []
    failed: list[str] = []
    seen: list[tuple[str, str]] = []
    index, count = (int(part) for part in given.part.split("/"))
    for zoo in given.zoos:
        entries = [entry for entry in ZOOS[zoo]() if re.search(given.only, entry.name)]
        for entry in entries[index::count]:
            try:
                report = examined(entry, given.values)
            except NormDoctorError as error:
                failed.append(f"{entry.zoo} {entry.name}: {error.message[:120]}")
            except Exception as error:
                failed.append(f"{entry.zoo} {entry.name}: {one_line(error)}")
            else:
                seen.append((entry.zoo, entry.name))
                mine = rows_of(entry, report)
                rows += mine
                for row in mine:
                    if row["severity"] != "info":
                        print(" ", *(row[key] for key in COLUMNS[:-1]), row["message"][:110], flush=True)
                for result in report.results:
                    if result.outcome == "error":
                        print(f"  CRASH {entry.name} {result.code}: {result.reason}", flush=True)
            gc.collect()
    return rows, failed, seen


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, str]], seen: list[tuple[str, str]]) -> None:
    """Put the rows of the models that were examined in the place of their old ones.

    A model without a finding has a row without a code, so that the table knows that it was examined.
    """
    kept = [row for row in read(GOLDEN) if (row["zoo"], row["model"]) not in set(seen)]
    spoken = {(row["zoo"], row["model"]) for row in rows}
    silent = [
        dict.fromkeys(COLUMNS, "") | {"zoo": zoo, "model": name}
        for zoo, name in seen
        if (zoo, name) not in spoken
    ]
    ordered = sorted(kept + rows + silent, key=lambda row: [row[key] for key in COLUMNS[:4]])
    RESULTS.mkdir(exist_ok=True)
    with GOLDEN.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)


def compare(rows: list[dict[str, str]], seen: list[tuple[str, str]]) -> int:
    """Print what the golden file has and this run has not, and the other way round."""
    keys = ("zoo", "model", "code", "severity")
    known = {tuple(row[key] for key in keys) for row in read(GOLDEN) if row["code"]}
    known = {row for row in known if row[:2] in set(seen)}
    now = {tuple(row[key] for key in keys) for row in rows}
    for sign, lines in (("-", known - now), ("+", now - known)):
        for line in sorted(lines):
            print(sign, *line)
    return int(known != now)


def verdict_of(row: dict[str, str], verdicts: list[dict[str, str]]) -> str:
    """What the reader says; a verdict's model may be a glob."""
    for one in verdicts:
        same = one["zoo"] == row["zoo"] and one["code"] == row["code"]
        if same and fnmatch.fnmatchcase(row["model"], one["model"]):
            return one["verdict"]
    return "none"


def summary() -> None:
    """Print findings per rule and level, verdicts, and the share of disputed models."""
    rows, verdicts = read(GOLDEN), read(VERDICTS)
    models = {(row["zoo"], row["model"]) for row in rows}
    print("models", dict(collections.Counter(zoo for zoo, _ in sorted(models))))
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    for row in rows:
        if row["code"]:
            counts.setdefault((row["code"], row["severity"]), collections.Counter())[row["zoo"]] += 1
    for (code, severity), by_zoo in sorted(counts.items()):
        listed = ", ".join(f"{zoo} {number}" for zoo, number in sorted(by_zoo.items()))
        print(f"  {code} {severity:8} {sum(by_zoo.values()):4} models ({listed})")
    grave = [row for row in rows if row["severity"] in ("warning", "error")]
    said = [(row, verdict_of(row, verdicts)) for row in grave]
    print("verdicts", dict(collections.Counter(verdict for _, verdict in said)))
    disputed = {(row["zoo"], row["model"]) for row, verdict in said if verdict in ("false", "by design")}
    print(f"models with a disputed warning or error: {len(disputed)} of {len(models)}", end=" ")
    print(f"({100 * len(disputed) / max(len(models), 1):.1f} %)")
    for row, verdict in said:
        if verdict == "none":
            print(
                "  no verdict:", row["zoo"], row["model"], row["code"], row["severity"], row["message"][:90]
            )


def peer() -> None:
    """Count findings of torch-audit and ours on the same models, each built and checked as it says."""
    audit = importlib.import_module("torch_audit")
    table = []
    for entry in ZOOS["torchvision"]():
        if entry.name not in PEER_MODELS:
            continue
        torch.manual_seed(0)
        model = entry.build()
        ours = [f for f in examined(entry, 4.0).findings if str(f.severity) != "info"]
        table.append((entry.name, count_peer(audit, model), len(ours)))
        print(f"  {entry.name:20} torch-audit {table[-1][1]:4}  normdoctor {len(ours)}", flush=True)
    spoke = sum(1 for _, theirs, _ in table if theirs), sum(1 for *_, ours in table if ours)
    print(
        f"reports something on: torch-audit {spoke[0]} of {len(table)}, normdoctor {spoke[1]} of {len(table)}"
    )


def count_peer(audit: Any, model: nn.Module) -> int:
    """The number of findings of torch-audit's static and initialization checks."""
    result = audit.audit(model, phase="static", show_report=False)
    more = audit.audit(model, phase="init", show_report=False)
    return len(result.findings) + len(more.findings)


def main() -> int:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("zoos", nargs="*", help=", ".join(sorted(ZOOS)))
    parser.add_argument("--values", type=float, default=0.0, help="build with values up to so many GiB")
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th model from the i-th")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--peer", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.zoos) - set(ZOOS):
        parser.error(f"unknown zoo {', '.join(sorted(unknown))}: expected {', '.join(sorted(ZOOS))}")
    warnings.simplefilter("ignore")
    if given.peer:
        peer()
    code = 0
    if given.zoos:
        rows, failed, seen = sweep(given)
        print(f"{len(seen)} models examined, {len(failed)} not:", *failed[:40], sep="\n  ")
        if given.write:
            write(rows, seen)
        else:
            code = compare(rows, seen)
    if given.summary or given.write:
        summary()
    return code


if __name__ == "__main__":
    sys.exit(main())
