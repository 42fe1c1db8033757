"""Hold normdoctor against models that nobody of this project wrote.

    python benchmarks/zoo.py timm torchvision transformers pytorchcv [--replay] [--only REGEX] [--jobs 2]

Prints, for each zoo: models built, recorded, replayed bit for bit, seconds a model, findings by rule
and level, and every model that could not be run with the reason. `--output FILE` keeps a row a model.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gc
import json
import re
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import ZOOS, Entry

from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError
from normdoctor.loading.target import from_object
from normdoctor.running import Session
from normdoctor.tracing.examine import Request, examine
from normdoctor.tracing.inputs import as_example
from normdoctor.tracing.recording import Recording, input_tensors, output_tensors


def run(entry: Entry, *, replay: float, rules: bool) -> dict[str, Any]:
    """One model through build, the bare forward, recording, replay and the rules."""
    row: dict[str, Any] = {"zoo": entry.zoo, "name": entry.name}
    try:
        model = on_meta(entry)
        inputs = entry.inputs(model)
    except Exception as error:
        return {**row, "built": False, "error": one_line(error)}
    row["built"] = True
    example = as_example(inputs)
    meta = [to_meta(value) for value in example.args], {k: to_meta(v) for k, v in example.kwargs.items()}
    if replay:  # first, while no cache of the library holds tensors of a recording on meta
        row["replay"] = replayed(entry, model, replay)
    row["runs"], row["bare"] = bare_forward(model, *meta)
    start = time.perf_counter()
    examination = None
    try:
        examination = examine(from_object(model, name=entry.name), Request(inputs=inputs))
        row["seconds"] = time.perf_counter() - start
        row["recorded"] = examination.recording is not None
        if examination.recording is not None:
            row["carrier"] = examination.recording.carrier
            row["nodes"] = len(examination.recording.graph.nodes)
            row["notes"] = [note for note in examination.facts.notes if "recorded" in note]
        else:
            row["error"] = str(examination.error)
    except NormDoctorError as error:
        row.update(recorded=False, error=str(error))
    except Exception as error:
        row.update(recorded=False, crash="".join(traceback.format_exception(error))[-3000:])
    if rules and examination is not None:
        session = Session(Settings())
        session.check(examination.facts)
        report = session.report()
        row["findings"] = [
            {
                "code": f.code,
                "severity": str(f.severity),
                "message": f.message,
                "modules": list(f.modules),
                "line": f.location.line if f.location else None,
            }
            for f in report.findings
        ]
    del examination
    return row


def bare_forward(model: torch.nn.Module, args: list[Any], kwargs: dict[str, Any]) -> tuple[str, float]:
    """How the model runs by itself on meta: its own judge of "runs"; seconds of the second run."""
    for mode in ("train", "eval"):
        model.train(mode == "train")
        try:
            model(*args, **kwargs)
            start = time.perf_counter()
            model(*args, **kwargs)
            return mode, time.perf_counter() - start
        except Exception:
            continue
        finally:
            model.train()
    return "", 0.0


def replayed(entry: Entry, meta_model: torch.nn.Module, limit: float) -> str:
    """Build the model with values, record it, and compare the graph's output with the model's."""
    size = sum(p.numel() * 4 for p in meta_model.parameters()) / 2**30
    if size > limit:
        return f"left out: {size:.1f} GiB of weights"
    forget_cached()
    try:
        torch.manual_seed(0)
        model = entry.build().eval()
        example = as_example(entry.inputs(model))
        found = examine(from_object(model), Request(inputs=example))
        if found.recording is None:
            return f"not recorded with values: {found.error}"
        return compare(found.recording, model)
    except NormDoctorError as error:
        return str(error)
    except Exception as error:
        return one_line(error)


def forget_cached() -> None:
    """Empty the caches of libraries: a bare forward on meta leaves tensors without data in them."""
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper):
            one.cache_clear()


def compare(recording: Recording, model: torch.nn.Module) -> str:
    """Say "same" where the graph gives the model's outputs bit for bit, otherwise what differs."""
    example = recording.example
    torch.backends.mha.set_fastpath_enabled(False)
    torch.manual_seed(1)
    with torch.no_grad():
        wanted = [tensor for _, tensor in output_tensors(model(*example.args, **example.kwargs))]
        torch.manual_seed(1)
        got = recording.graph_module()(*input_tensors(example))
    if len(wanted) != len(got):
        return f"{len(got)} outputs instead of {len(wanted)}"
    for name, one, other in zip(recording.output_names, wanted, got, strict=True):
        if one.shape != other.shape:
            return f"{name}: shape {tuple(other.shape)} instead of {tuple(one.shape)}"
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            return f"{name}: differs by {(one.double() - other.double()).abs().max():.3g}"
    return "same"


def on_meta(entry: Entry) -> torch.nn.Module:
    """The model without data; some can only be built with values, and give them up afterwards."""
    try:
        with torch.device("meta"):
            return entry.build()
    except (RuntimeError, NotImplementedError):
        return entry.build().to("meta")


def to_meta(value: Any) -> Any:
    """Floats without data; ids and masks keep their values, as in the recording."""
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def one_line(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def summary(rows: list[dict[str, Any]]) -> None:
    """Print what the rows say, zoo by zoo."""
    for zoo in dict.fromkeys(row["zoo"] for row in rows):
        mine = [row for row in rows if row["zoo"] == zoo]
        built = [row for row in mine if row["built"]]
        runs = [row for row in built if row["runs"]]
        recorded = [row for row in built if row.get("recorded")]
        both = [row for row in runs if row.get("recorded")]
        times = sorted(row["seconds"] for row in recorded) or [0.0]
        print(f"\n{zoo}: {len(mine)} models, {len(built)} built, {len(runs)} run on meta by themselves,")
        print(f"  recorded {len(recorded)}; of those that run by themselves {len(both)} of {len(runs)}")
        print(f"  carriers {dict(collections.Counter(row.get('carrier') for row in recorded))}")
        print(f"  seconds a model (load excepted): median {times[len(times) // 2]:.2f}, most {times[-1]:.2f}")
        crashes = [row for row in mine if row.get("crash")]
        print(f"  crashes: {len(crashes)}")
        for row in crashes:
            print(f"    {row['name']}: {row['crash'].strip().splitlines()[-1]}")
        for row in built:
            if not row.get("recorded") and not row.get("crash") and row["runs"]:
                print(f"    NOT RECORDED {row['name']}: {row['error'][:250]}")
        if any("replay" in row for row in recorded):
            tried = [row for row in recorded if not row["replay"].startswith("left out")]
            same = sum(row["replay"] == "same" for row in tried)
            print(f"  replayed bit for bit: {same} of {len(tried)} ({len(recorded) - len(tried)} left out)")
            for row in tried:
                if row["replay"] != "same":
                    print(f"    {row['name']}: {row['replay'][:220]}")
        found = collections.Counter(
            (f["code"], f["severity"]) for row in built for f in row.get("findings", [])
        )
        print("  findings:", ", ".join(f"{c} {s} {n}" for (c, s), n in sorted(found.items())) or "none")
        for row in built:
            for f in row.get("findings", []):
                if f["severity"] != "info":
                    print(f"    {row['name']}: {f['severity']} {f['code']} {f['message'][:160]}")


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("zoos", nargs="+", choices=sorted(ZOOS))
    parser.add_argument(
        "--replay", type=float, nargs="?", const=2.0, default=0.0, help="up to so many GiB of weights"
    )
    parser.add_argument("--no-rules", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th model from the i-th")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    index, count = (int(part) for part in given.part.split("/"))
    rows = []
    for zoo in given.zoos:
        entries = [entry for entry in ZOOS[zoo]() if re.search(given.only, entry.name)]
        for entry in entries[index::count]:
            row = run(entry, replay=given.replay, rules=not given.no_rules)
            rows.append(row)
            if given.verbose:
                shown = {k: v for k, v in row.items() if k not in ("findings", "notes")}
                print(json.dumps(shown)[:600], file=sys.stderr, flush=True)
            if given.output:
                given.output.write_text("".join(json.dumps(one) + "\n" for one in rows))
            gc.collect()
    summary(rows)


if __name__ == "__main__":
    main()
