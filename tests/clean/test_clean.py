"""Nothing at warning or above may be said of the good constructs in `cases`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from normdoctor.testing import check_source

FOLDER = Path(__file__).parent
KNOWN = FOLDER / "known_false_alarms.txt"


def _load():
    if "clean_cases" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "clean_cases",
            FOLDER / "cases" / "__init__.py",
            submodule_search_locations=[str(FOLDER / "cases")],
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["clean_cases"] = module
        spec.loader.exec_module(module)
    return list(sys.modules["clean_cases"].all_cases())


CASES = _load()


def known() -> dict[str, str]:
    """Id and code to the reason why it is said for now."""
    lines = KNOWN.read_text(encoding="utf-8").splitlines() if KNOWN.exists() else []
    rows = [line.split(None, 2) for line in lines if line.strip() and not line.startswith("#")]
    return {f"{case} {code}": reason for case, code, reason in rows}


def test_ids_are_unique():
    ids = [case.id for case in CASES]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nothing_is_said(case):
    report = check_source(case.source)
    assert not report.problems, report.problems
    assert not [result for result in report.results if result.outcome == "error"]
    spoken = {f"{case.id} {finding.code}" for finding in report.findings if str(finding.severity) != "info"}
    expected = {key for key in known() if key.split()[0] == case.id}
    assert spoken == expected, [(f.code, f.message, f.modules) for f in report.findings]
