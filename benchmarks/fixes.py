"""Fixes of mutants: faults are put into clean nets, found, and fixed in the source.

    python benchmarks/fixes.py [--only OPERATOR] [--net NAME] [--rule CODE] [--failures] [--output FILE]

A mutant counts where a finding of its own rule offers a fix. Fixed: `--fix --unsafe-fixes` on its rule gives
a file that loads, on which the rule is silent. Clean: no rule fires that did not before. Stable: a second run
changes nothing. Same: with equal state, the outputs of safe fixes are equal in train mode, and in eval mode
once the running statistics have settled; this is measured here, beside the proof that the fix itself makes.
Exit code 1 where a mutant is not all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutants import package

HEADS = ("rule", "fix", "operators", "mutants", "offered", "fixed", "clean", "stable", "same", "share")
#: Forwards after which running averages have reached what they average.
SETTLED = 200
#: The largest difference of outputs, relative to the largest output (float32).
TOLERANCE = 1e-3
#: Safe fixes whose outputs change because the fault lies in them; the loop compares with the call made right.
ALTERS = {"ND315": "by design", "ND318": "by design in eval"}
TITLE = """# Fixes of faults that were put into clean nets

Fixed: `--fix --unsafe-fixes` on its rule gives a file that loads, on which the rule is silent. Clean: no rule
fires that did not before. Stable: a second run changes nothing. Same: with equal state, the outputs of safe
fixes are equal in train mode, and in eval mode once the running statistics have settled; ND315 and ND318
change outputs by design. Made by `python benchmarks/fixes.py --output benchmarks/results/fixes.md`.
"""


@dataclass
class Result:
    """What became of one mutant."""

    mutant: Any
    code: str
    level: str = ""
    found: bool = False
    offered: bool = False
    fixed: bool = False
    clean: bool = False
    stable: bool = False
    same: bool | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        """Did all of it hold?"""
        return self.fixed and self.clean and self.stable and self.same is not False


def fixable_codes() -> dict[str, str]:
    """Code to name of the rules that offer fixes."""
    from normdoctor.rules import all_rules

    return {rule.code: rule.name for rule in all_rules() if rule.fixable}


def evaluate(mutant: Any, codes: set[str], *, compare: bool = True) -> Result | None:
    """Fix one mutant; None where it does not count: it does not run, or no rule of it has a fix."""
    import torch

    if mutant.void:
        return None
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="normdoctor-fixes-") as folder, contextlib.chdir(folder):
        Path("model.py").write_text(mutant.text, encoding="utf-8")
        values: dict[str, Any] = {"__name__": "net"}
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            try:
                exec(compile(mutant.text, "model.py", "exec"), values)
                values["model"](values["inputs"])
            except Exception:
                return None
            return _fixed(mutant, codes, "model.py:loss" if "loss" in values else None, compare)


def _fixed(mutant: Any, codes: set[str], loss: str | None, compare: bool) -> Result | None:
    from normdoctor.config import Settings
    from normdoctor.findings import Confidence
    from normdoctor.fixing.fixer import fix_targets

    wanted = tuple(sorted(codes & mutant.codes))
    if not wanted:
        return None
    result = Result(mutant, wanted[0])
    settings = Settings(select=wanted, min_confidence=Confidence.LOW, loss=loss, root=Path(os.getcwd()))
    before = _said(loss)
    outcome = fix_targets(["model.py"], settings, unsafe=True)
    findings = outcome.before.findings
    result.found = bool(findings)
    offers = [one for one in findings if one.fix is not None and one.fix.applicable]
    result.offered = bool(offers)
    if not offers:
        result.reason = "found, and no fix is offered" if findings else "not found as the command line does"
        return result
    result.code, result.level = offers[0].code, str(offers[0].fix.applicability)
    after = _said(loss)
    result.fixed = (
        bool(outcome.changes) and not {one.code for one in offers} & set(after) and "!" not in after
    )
    result.clean = set(after) <= set(before)
    if compare and result.level == "safe" and result.fixed:
        result.same = same(mutant.text, Path("model.py").read_text(encoding="utf-8"), result.code)
    again = fix_targets(["model.py"], settings, unsafe=True)
    result.stable = not again.changes
    reasons = [one.reason for one in outcome.unfixed]
    fresh = sorted(set(after) - set(before))
    result.reason = "; ".join([*dict.fromkeys(reasons), *([f"new: {', '.join(fresh)}"] if fresh else [])])
    return result


def same(old: str, new: str, code: str) -> bool:
    """Are the outputs equal in train mode (all but ND315), and in eval mode (all but ND315 and ND318)?"""
    import torch

    from normdoctor.loading.state import inventory

    models = []
    for text in (old, new):
        values: dict[str, Any] = {"__name__": "net"}
        torch.manual_seed(0)
        exec(compile(text, "net.py", "exec"), values)
        models.append(values["model"])
        inputs = values["inputs"]
    first, second = (inventory(model) for model in models)
    known = {re.sub(r"\[(\d+)\]", r".\1", name): entry.tensor for name, entry in first.tensors.items()}
    for name, entry in second.tensors.items():
        entry.tensor.data.copy_(known[name].reshape(entry.tensor.shape))

    def run(parts: Any, model: Any, training: bool) -> Any:
        for entry in parts.modules.values():
            entry.module.training = training
        torch.manual_seed(1)
        args = inputs if isinstance(inputs, tuple) else (inputs,)
        return model(*(value.clone() for value in args))

    equal = True
    for training in (True, False):
        with torch.no_grad():
            for _ in range(SETTLED if training else 1):
                found = [run(first, models[0], training), run(second, models[1], training)]
        pairs = list(zip(*(each if isinstance(each, tuple) else (each,) for each in found), strict=True))
        gaps = [(a - b).abs().max().item() / max(a.abs().max().item(), 1e-6) for a, b in pairs]
        if code != "ND315" and not (code == "ND318" and not training):
            equal = equal and max(gaps) < TOLERANCE
    return equal


def _said(loss: str | None) -> Counter[str]:
    """The codes of everything that all rules say; `!` where the file could not be examined."""
    from normdoctor import doctor

    report = doctor.check("model.py", min_confidence="low", loss=loss)
    said = Counter(one.code for one in report.findings)
    if report.problems:
        said["!"] += 1
    return said


def table(results: list[Result]) -> list[tuple[Any, ...]]:
    """A row for each rule."""
    rows = []
    for code in sorted({one.code for one in results}):
        of_rule = [one for one in results if one.code == code]
        offered = [one for one in of_rule if one.offered]
        good = sum(one.good for one in offered)
        compared = [one.same for one in offered if one.same is not None]
        rows.append(
            (
                code,
                "/".join(sorted({one.level for one in offered})),
                len({one.mutant.operator for one in of_rule}),
                len(of_rule),
                len(offered),
                sum(one.fixed for one in offered),
                sum(one.clean for one in offered),
                sum(one.stable for one in offered),
                (ALTERS.get(code) or str(sum(compared))) if compared else "",
                f"{good / len(offered):.3f}" if offered else "-",
            )
        )
    return rows


def main() -> int:
    """Run what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--net", help="one net")
    parser.add_argument("--rule", help="one rule")
    parser.add_argument("--failures", action="store_true", help="name what did not hold")
    parser.add_argument("--output", type=Path, help="keep the table as Markdown")
    options = parser.parse_args()
    codes = set(fixable_codes())
    results = []
    for mutant in package().all_mutants(options.only, options.net):
        if mutant.codes & codes and (options.rule is None or options.rule in mutant.codes):
            found = evaluate(mutant, codes)
            results += [found] if found is not None else []
            if options.failures and found is not None and not found.good:
                place = f"{mutant.operator} {mutant.net}:{mutant.place}"
                print(f"  {place}: {found.code} {found.reason or 'still there'}", flush=True)
    rows = table(results)
    print(tabulate(rows, headers=HEADS, disable_numparse=True))
    offered = [one for one in results if one.offered]
    good = sum(one.good for one in offered)
    said = (
        f"{len(rows)} rules, {len(results)} mutants, {len(offered)} with a fix: {good} fixed, clean, stable."
    )
    print(said)
    if options.output:
        markdown = tabulate(rows, headers=HEADS, tablefmt="github", disable_numparse=True)
        options.output.write_text(f"{TITLE}\n{said}\n\n{markdown}\n", encoding="utf-8")
    return int(good < len(offered))


if __name__ == "__main__":
    sys.exit(main())
