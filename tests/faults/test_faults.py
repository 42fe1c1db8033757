"""Reported faults are found, at their line, and their mended twins are left alone.

What fails today stands in `known_misses.txt`: an id, which of the tests, and the reason. A line that
holds no more fails too.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from corpus import Case, Verdict, cases, judge, left_out, placed

HERE = Path(__file__).parent
CASES = {case.id: case for case in cases()}
TESTS = ("found", "placed", "silent", "quiet")


def table(name: str) -> dict[tuple[str, ...], str]:
    """Rows `key: reason`, by the words of the key."""
    rows = (line.partition(": ") for line in (HERE / name).read_text(encoding="utf-8").splitlines() if line)
    return {tuple(key.split()): reason for key, _, reason in rows}


KNOWN = table("known_misses.txt")


@functools.cache
def verdict(name: str, fixed: bool) -> Verdict:
    case = CASES[name]
    return judge(case.fixed if fixed else case.faulty, case.given)


def holds(case: Case, test: str) -> bool:
    if test == "found":
        return verdict(case.id, False).finds(case.codes)
    if test == "placed":
        return placed(case, verdict(case.id, False)) is not False
    mended = verdict(case.id, True)
    if test == "silent":
        return not mended.finds(case.codes)
    return not mended.loud and not mended.problems


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("test", TESTS)
def test_verdict(name: str, test: str) -> None:
    case = CASES[name]
    said = [
        f"{f.code} {f.location}: {f.message}" for f in verdict(name, test in ("silent", "quiet")).findings
    ]
    if (name, test) in KNOWN:
        assert not holds(case, test), "no longer so: take the line out of known_misses.txt"
    else:
        assert holds(case, test), (case.codes, case.lines, said)


def test_known_misses_are_of_this_corpus() -> None:
    for (name, test), reason in KNOWN.items():
        assert name in CASES
        assert test in TESTS
        assert reason


def test_cases_are_well_formed() -> None:
    ids = [case.id for case in cases()]
    assert len(ids) == len(set(ids))
    for case in CASES.values():
        assert case.faulty != case.fixed, case.id
        assert case.lines, case.id
        assert case.faulty.isascii(), case.id
        assert case.kind != "variant" or case.id[:-1] in CASES, case.id


def test_rows_that_are_left_out_have_a_reason() -> None:
    left = left_out()
    assert all(row.reason for row in left)
    assert not {row.id for row in left} & set(CASES)
