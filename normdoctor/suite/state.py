"""What the plugin knows in one run of pytest: the settings, and the reports that were made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from normdoctor.baseline import Changes
from normdoctor.config import FAIL_ON, Settings, anchor, override
from normdoctor.configfile import load_settings
from normdoctor.errors import ConfigError, near
from normdoctor.findings import Severity
from normdoctor.report import Report
from normdoctor.selection import parse_selector, split_selectors

if TYPE_CHECKING:
    from normdoctor.loading.origins import Origins
    from normdoctor.suite.plan import Plan


class Record(msgspec.Struct, kw_only=True):
    """One report that was made: by a test (`test` is its node id), or of a target of the configuration.

    `told` is true once its findings stand in the text of a failure; `changes` are those of the baseline.
    """

    key: str
    report: Report
    test: str = ""
    told: bool = False
    changes: Changes | None = None


class State:
    """The run: `records` by their keys, and what to say at the end besides (`remarks`, `faults`)."""

    def __init__(self, config: pytest.Config, current: Callable[[], pytest.Item | None]) -> None:
        self.config = config
        self.current = current
        self.records: dict[str, Record] = {}
        self.remarks: list[str] = []
        self.faults: list[str] = []
        self.plan: Plan | None = None
        self.origins: Origins | None = None

    @property
    def on_worker(self) -> bool:
        """Is this a worker of xdist?"""
        return hasattr(self.config, "workerinput")

    @property
    def show(self) -> str:
        """The value of `--normdoctor-show`."""
        return str(self.config.option.normdoctor_show)

    @cached_property
    def settings(self) -> Settings:
        """Those of the configuration file with pytest's options over them."""
        option = self.config.option
        here, root = self.config.invocation_params.dir, self.config.rootpath
        settings = load_settings(start=here if here.is_relative_to(root) else root)
        given = {key: split_selectors(getattr(option, f"normdoctor_{key}")) for key in ("select", "ignore")}
        for selector in (*given["select"], *given["ignore"]):
            parse_selector(selector)
        fail_on = option.normdoctor_fail_on or self.config.getini("normdoctor_fail_on")
        if fail_on and fail_on not in FAIL_ON:
            expected = ", ".join(FAIL_ON)
            raise ConfigError(
                f"normdoctor_fail_on is {fail_on!r}: expected one of {expected}",
                hint=near(fail_on, list(FAIL_ON)),
            )
        settings = override(settings, **given, fail_on=fail_on or None)
        if targets := self.config.getini("normdoctor_targets"):
            base = self.config.inipath.parent if self.config.inipath else root
            settings = replace(settings, targets=tuple(anchor(target, base) for target in targets))
        return settings

    def add(self, report: Report, **more: Any) -> Record:
        """Keep a report of the test that runs, and count its findings among the properties of that test."""
        item = self.current()
        test = item.nodeid if item is not None else ""
        number = sum(record.test == test for record in self.records.values())
        record = Record(key=f"{test}\n{number:04}", report=report, test=test, **more)
        self.records[record.key] = record
        if item is not None:
            count(item, [one.report for one in self.of(test)])
        return record

    def of(self, test: str) -> list[Record]:
        """The reports that a test has made, in their order."""
        return [record for record in self.records.values() if test and record.test == test]


def count(item: pytest.Item, reports: list[Report]) -> None:
    """Set the properties of a test, for JUnit: `normdoctor.warnings` and the like."""
    names = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "info"}
    kept = [pair for pair in item.user_properties if not str(pair[0]).startswith("normdoctor.")]
    findings = [finding for report in reports for finding in report.findings]
    item.user_properties[:] = kept + [
        (f"normdoctor.{name}", sum(finding.severity is level for finding in findings))
        for level, name in names.items()
    ]


def seen_from(root: Path, file: str) -> str:
    """The path of a file relative to a folder, with `/`; a file elsewhere keeps its own."""
    path = Path(file).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file
