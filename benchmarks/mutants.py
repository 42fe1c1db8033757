"""Recall by mutation: faults put at every place of clean nets where they can stand.

    python benchmarks/mutants.py [--only OPERATOR] [--net NAME] [--escapes] [--output FILE]

Prints for each operator the places that count, how many were caught, how many at a wrong line, the
Wilson 95 % interval of the recall, and why the rest does not count; then what is said of the nets
themselves at warning and above. `--escapes` names what was not caught at its line; `--output` keeps all of
it as Markdown. Exit code 1 where a mutant escaped, stands at a wrong line, or a clean net is not silent.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent))
from intervals import proportion, wilson

TESTS = Path(__file__).resolve().parent.parent / "tests" / "mutants"
HEADS = ("operator", "rules", "places", "caught", "wrong line", "recall", "95 % interval", "not counted")

TITLE = """# Faults put into clean nets

Each operator puts one fault at every place of twelve nets (`tests/mutants/nets`) where it can stand.
Caught: a rule that is right for the fault fires. Wrong line: it fires, and nowhere at a line of the fault.
Made by `python benchmarks/mutants.py --output benchmarks/results/mutants.md`.
"""


def package() -> Any:
    """tests/mutants, which is no part of the installed package."""
    place = TESTS / "__init__.py"
    spec = importlib.util.spec_from_file_location("mutants_", place, submodule_search_locations=[str(TESTS)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants_"] = module
    spec.loader.exec_module(module)
    return importlib.import_module("mutants_.evaluation")


def table(evaluation: Any, outcomes: list[Any]) -> list[tuple[Any, ...]]:
    """A row for each operator."""
    codes = {one.mutant.operator: " ".join(sorted(one.mutant.codes)) for one in outcomes}
    rows = []
    for name, row in evaluation.tally(outcomes).items():
        low, high = wilson(row.caught, row.places)
        share = f"{row.caught / row.places:.3f}" if row.places else "-"
        void = "; ".join(f"{count} x {why}" for why, count in row.void.items())
        wrong = row.caught - row.placed
        interval = f"{low:.3f} to {high:.3f}"
        rows.append((name, codes[name], row.places, row.caught, wrong, share, interval, void))
    return rows


def summary(rows: list[tuple[Any, ...]], noise: list[tuple[str, str]]) -> str:
    """All operators in a few sentences."""
    places, caught, wrong = (sum(row[column] for row in rows) for column in (2, 3, 4))
    least = min((row[3] / row[2] for row in rows if row[2]), default=0.0)
    return (
        f"{len(rows)} operators, {places} mutants: recall {proportion(caught, places)}, least of an operator "
        f"{least:.3f}; {wrong} at a wrong line; {len(noise)} findings at warning and above in nets without a "
        "fault."
    )


def main() -> int:
    """Run what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--net", help="one net")
    parser.add_argument("--escapes", action="store_true", help="name what was not caught at its line")
    parser.add_argument("--output", type=Path, help="keep the tables as Markdown")
    options = parser.parse_args()
    evaluation = package()
    outcomes = [evaluation.evaluate(mutant) for mutant in evaluation.all_mutants(options.only, options.net)]
    nets = [source for source in evaluation.all_sources() if options.net in (None, source.net)]
    noise = [(source.net, said) for source in nets for said in evaluation.loud(source)]
    rows = table(evaluation, outcomes)
    print(tabulate(rows, headers=HEADS, disable_numparse=True))
    print(summary(rows, noise))
    for row in noise:
        print("  {} without a fault: {}".format(*row))
    missed = [one for one in outcomes if not one.void and not one.placed]
    for outcome in missed if options.escapes else ():
        one = outcome.mutant
        said = ", ".join(f"{code}:{line}" for code, line in outcome.said) or "nothing"
        print(f"  {one.operator} {one.net}:{one.place} expected lines {sorted(one.lines)}; said {said}")
    if options.output:
        markdown = tabulate(rows, headers=HEADS, tablefmt="github", disable_numparse=True)
        options.output.write_text(f"{TITLE}\n{summary(rows, noise)}\n\n{markdown}\n", encoding="utf-8")
    return int(bool(missed or noise))


if __name__ == "__main__":
    sys.exit(main())
