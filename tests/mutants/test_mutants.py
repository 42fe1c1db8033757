"""Faults put into clean nets are found, at their line; the clean nets themselves are silent.

A sample runs here: of each operator the first place that counts in each of two nets. All of them run
with `-m mutants`; `python benchmarks/mutants.py --escapes` prints the figures.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
#: Nets that an operator is tried on in the sample.
NETS_EACH = 2


def _package():
    """This folder as a package: tests are imported one by one, without one."""
    if "mutants_" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "mutants_", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["mutants_"] = module
        spec.loader.exec_module(module)
    return importlib.import_module("mutants_.evaluation")


evaluation = _package()
SOURCES = {source.net: source for source in evaluation.all_sources()}
MUTANTS = evaluation.all_mutants()


def _sample():
    taken: dict[str, set[str]] = {}
    for mutant in MUTANTS:
        nets = taken.setdefault(mutant.operator, set())
        if not mutant.void and mutant.net not in nets and len(nets) < NETS_EACH:
            nets.add(mutant.net)
            yield mutant


def _name(mutant) -> str:
    return f"{mutant.operator}-{mutant.net}-{mutant.place}"


def _assert_found(mutant) -> None:
    outcome = evaluation.evaluate(mutant)
    if outcome.void:
        pytest.skip(outcome.void)
    assert outcome.caught, f"{mutant.codes} not among {outcome.said}\n{mutant.text}"
    assert outcome.placed, f"expected at {sorted(mutant.lines)}: {outcome.said}\n{mutant.text}"


@pytest.mark.parametrize("net", SOURCES)
def test_clean_nets_are_silent(net):
    assert evaluation.loud(SOURCES[net]) == []


def test_the_operators_are_many_and_every_net_takes_part():
    assert len({mutant.operator for mutant in MUTANTS}) >= 25
    assert {mutant.net for mutant in MUTANTS} == set(SOURCES)
    assert all(mutant.lines for mutant in MUTANTS if not mutant.void)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", list(_sample()), ids=_name)
def test_sample(mutant):
    _assert_found(mutant)


@pytest.mark.mutants
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", MUTANTS, ids=_name)
def test_all(mutant):
    _assert_found(mutant)
