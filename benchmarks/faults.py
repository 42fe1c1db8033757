"""Hold the rules against reported faults, their mended twins and clean models.

    python benchmarks/faults.py [--only REGEX] [--output FILE]

Prints recall (a rule that names the fault fires on the faulty model), specificity (none of these rules
fires on the mended one), how often the finding stands at the faulty line, and the share of clean models
without a warning or an error; each with its Wilson 95 % interval. The same for the reports of which the
list says that inputs (D), measurements (R) or a training (T) are needed to see them, whichever rule finds
them, with those that were not rebuilt counted as missed; and for all cases that are checked with data, in a
watch or on ranks. Then a row a rule, and every miss and false alarm with what was said instead. `--output`
keeps all of it as JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus import CONFIRMED, Case, LeftOut, Verdict, cases, clean, hear, judge, left_out, placed
from intervals import proportion

from normdoctor.errors import NormDoctorError
from normdoctor.findings import Confidence, Finding


@dataclass(frozen=True)
class Trial:
    """A case, and what was said of its two files."""

    case: Case
    faulty: Verdict
    fixed: Verdict

    @property
    def found(self) -> bool:
        """Does a right rule fire?"""
        return self.faulty.finds(self.case.codes)

    @property
    def shown(self) -> bool:
        """Found with the confidence that the default report shows."""
        right = self.faulty.named(self.case.codes)
        return any(finding.confidence.rank >= Confidence.MEDIUM.rank for finding in right)

    @property
    def silent(self) -> bool:
        """Do the right rules keep silent on the mended file?"""
        return not self.fixed.finds(self.case.codes)


def heard(check: Callable[..., Verdict], *args: Any) -> Verdict:
    """An error of the check is a problem of the file."""
    try:
        return check(*args)
    except NormDoctorError as error:
        return Verdict((), (str(error),))


def said(findings: Iterable[Finding]) -> str:
    """Findings in one line."""
    return "; ".join(
        f"{finding.code} {finding.severity} line {finding.location.line if finding.location else '-'}"
        for finding in findings
    )


def figures(trials: list[Trial], healthy: dict[str, Verdict], left: list[LeftOut]) -> list[tuple[str, str]]:
    """The proportions, with names; `left` are the reports that were not rebuilt."""
    reported = [trial for trial in trials if trial.case.kind == "reported"]
    confirmed = [trial for trial in reported if trial.case.status in CONFIRMED]
    places = [placed(trial.case, trial.faulty) for trial in trials if trial.found]
    rows = [
        ("recall, reported faults", _share(reported, "found")),
        ("recall, confirmed ones", _share(confirmed, "found")),
        ("recall, confirmed, default report", _share(confirmed, "shown")),
    ]
    rows += [
        (f"recall, {kind}", _share([trial for trial in trials if trial.case.kind == kind], "found"))
        for kind in ("variant", "own")
    ]
    rows += [
        ("recall, all", _share(trials, "found")),
        (
            "found at the faulty line",
            proportion(sum(p is True for p in places), len([p for p in places if p is not None])),
        ),
        ("specificity, mended twins", _share(trials, "silent")),
        ("mended twins without a warning", proportion(sum(not t.fixed.loud for t in trials), len(trials))),
        (
            "clean models without a warning",
            proportion(sum(not v.loud for v in healthy.values()), len(healthy)),
        ),
    ]
    return rows + runtime(trials, left)


def runtime(trials: list[Trial], left: list[LeftOut]) -> list[tuple[str, str]]:
    """The proportions of what needs inputs, measurements or a training to be seen."""
    rows = []
    for modes in ("RT", "RTD"):
        chosen = [t for t in trials if t.case.kind == "reported" and set(modes) & set(t.case.mode)]
        missing = [row for row in left if set(modes) & set(row.mode)]
        sure = [trial for trial in chosen if trial.case.status in CONFIRMED]
        sure_missing = sum(row.status in CONFIRMED for row in missing)
        name = " or ".join(filter(None, (", ".join(modes[:-1]), modes[-1])))
        rows += [
            (f"recall, reports that need {name}", _share(chosen, "found", len(missing))),
            (f"recall, those confirmed ({name})", _share(sure, "found", sure_missing)),
            (f"their mended twins silent ({name})", _share(chosen, "silent")),
        ]
    for kind in ("data", "watch", "ranks"):
        run = [trial for trial in trials if trial.case.runs == kind]
        rows.append((f"checked with {kind}: recall", _share(run, "found")))
        rows.append((f"checked with {kind}: mended twins silent", _share(run, "silent")))
    return rows


def _share(trials: list[Trial], name: str, missing: int = 0) -> str:
    return proportion(sum(getattr(trial, name) for trial in trials), len(trials) + missing)


def by_rule(trials: list[Trial], healthy: dict[str, Verdict]) -> list[tuple[str, str, int, int, int]]:
    """For each rule: found of expected (as the first code), right, on mended twins, on clean models."""
    first = collections.Counter(trial.case.codes[0] for trial in trials if trial.case.codes)
    hit = collections.Counter(t.case.codes[0] for t in trials if t.case.codes and t.found)
    right, wrong, noisy = (collections.Counter[str]() for _ in range(3))
    for trial in trials:
        right.update({finding.code for finding in trial.faulty.named(trial.case.codes)})
        wrong.update({finding.code for finding in trial.fixed.named(trial.case.codes)})
    for verdict in healthy.values():
        noisy.update({finding.code for finding in verdict.findings})
    codes = sorted({*first, *right, *wrong, *noisy})
    return [(c, f"{hit[c]}/{first[c]}", right[c], wrong[c], noisy[c]) for c in codes]


def mistakes(trials: list[Trial], healthy: dict[str, Verdict]) -> list[tuple[str, str, str]]:
    """Misses, wrong places and false alarms: id, which, what was said."""
    rows = []
    for trial in trials:
        case, faulty, fixed = trial.case, trial.faulty, trial.fixed
        wanted = " or ".join(case.codes) or "no rule in the catalogue"
        if not trial.found:
            rows.append((case.id, f"missed {wanted}", said(faulty.findings) or "; ".join(faulty.problems)))
        elif placed(case, faulty) is False:
            rows.append((case.id, f"not at lines {case.lines}", said(faulty.named(case.codes))))
        if not trial.silent:
            rows.append((case.id, "fires on the mended twin", said(fixed.named(case.codes))))
        if others := [finding for finding in fixed.loud if finding.code not in case.codes]:
            rows.append((case.id, "warning on the mended twin", said(others)))
        if fixed.problems:
            rows.append((case.id, "mended twin not examined", "; ".join(fixed.problems)))
    for name, verdict in healthy.items():
        if verdict.loud or verdict.problems:
            rows.append((name, "warning on a clean model", said(verdict.loud) or "; ".join(verdict.problems)))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="run ids that match this expression")
    parser.add_argument("--output", type=Path, help="keep the results as JSON")
    options = parser.parse_args(argv)
    chosen = re.compile(options.only)
    trials = [
        Trial(case, heard(judge, case.faulty, case.given), heard(judge, case.fixed, case.given))
        for case in cases()
        if chosen.search(case.id)
    ]
    healthy = {row.id: heard(hear, row.source) for row in clean() if chosen.search(row.id)}
    shares = figures(trials, healthy, [row for row in left_out() if chosen.search(row.id)])
    print(tabulate(shares, tablefmt="plain"))
    print()
    heads = ("rule", "found", "right", "on mended", "on clean")
    print(tabulate(by_rule(trials, healthy), headers=heads, disable_numparse=True))
    print()
    for row in mistakes(trials, healthy):
        print("{:8} {}: {}".format(*row))
    if options.output:
        kept: dict[str, Any] = {
            "figures": dict(shares),
            "rules": by_rule(trials, healthy),
            "mistakes": mistakes(trials, healthy),
            "found": {trial.case.id: trial.found for trial in trials},
        }
        options.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
