"""Runs the command line in this process, with a doctor that needs no torch, or in a new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from normdoctor.config import Settings
from normdoctor.errors import TargetError
from normdoctor.facts import Facts
from normdoctor.report import Report
from normdoctor.running import OnResult, Session


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, make_facts: Callable[..., Facts]) -> list[Settings]:
    """Puts a doctor in place that knows model.py only; the settings that it was given are listed here."""
    calls: list[Settings] = []

    def facts_of(spec: str, settings: Settings) -> tuple[Facts, ...]:
        calls.append(settings)
        if not spec.startswith("model.py"):
            raise TargetError(f"no such file: {spec}", hint="Did you mean model.py?")
        name = spec.partition(":")[2] or "Net"
        return (make_facts(f"model.py:{name}", bomb=name == "Bomb"),)

    def check_targets(specs: Sequence[str], settings: Settings, on_result: OnResult | None = None) -> Report:
        session = Session(settings, on_result)
        for spec in specs:
            try:
                found = facts_of(spec, settings)
            except TargetError as error:
                session.problem(spec, error)
                continue
            for facts in found:
                if not session.stopped:
                    session.check(facts, spec)
        return session.report()

    doctor = ModuleType("normdoctor.doctor")
    vars(doctor).update(check_targets=check_targets, facts_of=facts_of)
    monkeypatch.setitem(sys.modules, "normdoctor.doctor", doctor)
    monkeypatch.setattr("normdoctor.doctor", doctor, raising=False)
    return calls


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `normdoctor ARGUMENTS`, without what the environment says of colour and width."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "NORMDOCTOR_OUTPUT_FORMAT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, **options: Any) -> Result:
        from normdoctor.cli import main

        return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)

    return run


@pytest.fixture
def without_torch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `normdoctor ARGUMENTS` in a new process that ends in an error if torch was imported."""
    code = (
        "import sys\n"
        "from normdoctor.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    found = [name for name in sys.modules if name.partition('.')[0] in ('torch', 'numpy')]\n"
        "    if found: sys.stderr.write('IMPORTED ' + found[0]); sys.exit(99)\n"
    )

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run
