"""Faults put into clean nets are fixed in the source: a sample, one of each rule.

`python benchmarks/fixes.py` runs all of them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def _benchmark():
    if "benchmark_fixes" not in sys.modules:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        try:
            spec = importlib.util.spec_from_file_location("benchmark_fixes", ROOT / "benchmarks" / "fixes.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules["benchmark_fixes"] = module
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(ROOT / "benchmarks"))
    return sys.modules["benchmark_fixes"]


fixes = _benchmark()
CODES = set(fixes.fixable_codes())
#: Operators whose findings offer no fix, and why.
WITHOUT = {
    "dropout-of-everything": "a rate of 1 is wrong, and what is right is not known",
    "sigmoid-before-cross-entropy": "found by another rule (ND314)",
    ("no-running-statistics", "functional"): "the function has no buffers to take statistics in",
}
QUICK = ("functional", "mlp", "resnet", "policy")


def _sample():
    """One mutant of each rule."""
    taken = set()
    for mutant in fixes.package().all_mutants():
        code = min(mutant.codes & CODES, default="")
        without = mutant.void or mutant.operator in WITHOUT or (mutant.operator, mutant.net) in WITHOUT
        if code and code not in taken and mutant.net in QUICK and not without:
            taken.add(code)
            yield mutant


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", list(_sample()), ids=lambda one: f"{one.operator}-{one.net}-{one.place}")
def test_a_fault_is_fixed(mutant):
    found = fixes.evaluate(mutant, CODES, compare=False)
    if found is None:
        pytest.skip("the mutant does not run")
    assert found.offered, found.reason
    assert (found.fixed, found.clean, found.stable) == (True,) * 3, found.reason


def test_the_sample_is_large():
    assert len(list(_sample())) >= 10
