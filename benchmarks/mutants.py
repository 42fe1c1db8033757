"""Recall by mutation: faults put at every place of clean nets where they can stand.

    python benchmarks/mutants.py [--only OPERATOR] [--net NAME] [--escapes]

Prints for each operator the places that count, how many were caught, how many at the right line, the
Wilson 95 % interval of the recall, and why the rest does not count. Exit code 1 where one escaped.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests" / "mutants"


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


def main() -> int:
    """Run what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="one operator")
    parser.add_argument("--net", help="one net")
    parser.add_argument("--escapes", action="store_true", help="name what was not caught at its line")
    options = parser.parse_args()
    evaluation = package()
    mutants = evaluation.all_mutants(options.only, options.net)
    outcomes = [evaluation.evaluate(mutant) for mutant in mutants]
    rows = evaluation.tally(outcomes)
    print(f"{'operator':34} {'codes':24} places caught  line   95 % interval")
    for name, row in rows.items():
        low, high = evaluation.wilson(row.caught, row.places)
        codes = " ".join(sorted(next(one.codes for one in mutants if one.operator == name)))
        figures = f"{row.places:6} {row.caught:6} {row.placed:5}   {low:.3f} to {high:.3f}"
        void = "; ".join(f"{count} x {why}" for why, count in row.void.items())
        print(f"{name:34} {codes:24} {figures}" + (f"   not counted: {void}" if void else ""))
    places = sum(row.places for row in rows.values())
    caught = sum(row.caught for row in rows.values())
    placed = sum(row.placed for row in rows.values())
    low, high = evaluation.wilson(caught, places)
    print(f"{len(rows)} operators, {places} mutants: {caught} caught ({low:.3f} to {high:.3f}),", end=" ")
    print(f"{placed} at their line")
    if options.escapes:
        for outcome in outcomes:
            if not outcome.void and not outcome.placed:
                one = outcome.mutant
                said = ", ".join(f"{code}:{line}" for code, line in outcome.said) or "nothing"
                print(
                    f"  {one.operator} {one.net}:{one.place} expected lines {sorted(one.lines)}; said {said}"
                )
    return int(placed < places)


if __name__ == "__main__":
    sys.exit(main())
