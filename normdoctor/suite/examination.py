"""Examining a target of the configuration, once for all its items, as `normdoctor check` does."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from normdoctor.baseline import WRITE, Changes, changes
from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError, brief
from normdoctor.report import Problem, Report
from normdoctor.suite.state import Record

if TYPE_CHECKING:
    from normdoctor.suite.plan import Place
    from normdoctor.suite.state import State


class Examination:
    """What one target string of the configuration stands for: a model, or all models of a file."""

    def __init__(self, state: State, settings: Settings, spec: str) -> None:
        self.state = state
        self.spec = spec
        # Comments that silence nothing are judged over all targets, which no worker of xdist sees.
        self.settings = replace(settings, ignore=(*settings.ignore, "ND002"))
        self._report: Report | None = None

    def report(self, items: Sequence[pytest.Item]) -> Report:
        """Examine the target with the rules of those of the items that are its own, the first time."""
        if self._report is None:
            settings = self._narrowed(items)
            try:
                self._report = self._examined(settings)
            except Exception as error:  # told by one item, not by each of them
                detail = "".join(traceback.format_exception(error))
                hint = (error.hint or "") if isinstance(error, NormDoctorError) else ""
                message = error.message if isinstance(error, NormDoctorError) else brief(error)
                problem = Problem(target=self.spec, message=message, hint=hint, detail=detail)
                self._report = Report(problems=(problem,), fail_on=settings.fail_on)
                self._keep(self._report)
        return self._report

    def problem(self, place: Place) -> Problem | None:
        """Why a model could not be examined, or not whole; None where it was."""
        problems = self._report.problems if self._report else ()
        names = (self.spec, place.target)
        return next((one for one in problems if place.target is None or one.target in names), None)

    def _narrowed(self, items: Sequence[pytest.Item]) -> Settings:
        """The settings for the rules that were selected with -k and the like, where it is not all of them."""
        codes = {item.name for item in items if getattr(item, "examination", None) is self}
        every = {rule.code for rule in self.settings.selection(None, self.spec).rules if not rule.about_run}
        asked = tuple(sorted(codes & every))
        if not asked or len(asked) == len(every):
            return self.settings
        return replace(self.settings, only={**self.settings.only, self.spec: asked})

    def _examined(self, settings: Settings) -> Report:
        from normdoctor.doctor import check_targets

        made: Changes | None = None
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("default")  # the user's own, which pytest may make errors of
            copy = Path(folder, "baseline.json")
            update = bool(self.state.config.option.normdoctor_update_baseline) and settings.baseline
            if update:
                if update.exists():
                    shutil.copyfile(update, copy)
                settings = replace(settings, baseline=copy, baseline_mode=WRITE)
            report = check_targets([self.spec], settings)
            if update:
                made = changes(update, copy)
                report = msgspec.structs.replace(report, remarks=())
        self._keep(report, made)
        return report

    def _keep(self, report: Report, made: Changes | None = None) -> None:
        key = f"\n{self.spec}"
        self.state.records[key] = Record(key=key, report=report, told=True, changes=made)
