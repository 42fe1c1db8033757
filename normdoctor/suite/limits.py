"""`max_dead` and `min_batch`: limits that a test sets, judged by the rules that measure them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from normdoctor.config import Settings, check_count
from normdoctor.errors import UsageError, kind_of
from normdoctor.report import Report

#: The rules about dead units, and about statistics of small batches.
DEAD, ALL_DEAD, SMALL = "ND601", "ND602", "ND701"


@dataclass(frozen=True)
class Limits:
    """The limits of one check; None where the test sets none.

    Args:
        max_dead: The largest share of dead units of a ReLU, from 0 to 1.
        min_batch: The smallest batch size that every BatchNorm has to be fit for.
    """

    max_dead: float | None = None
    min_batch: int | None = None

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Limits:
        """Take the limits out of the options of a check; raises UsageError for values that are none."""
        dead, batch = options.pop("max_dead", None), options.pop("min_batch", None)
        for name, value in (("max_dead", dead), ("min_batch", batch)):
            if value is not None and options.get("data") is None:
                raise UsageError(
                    f"{name}= is judged on data, and there is none",
                    hint="Pass data= as well: a DataLoader, or a list of batches.",
                )
        if dead is not None and (type(dead) not in (int, float) or not 0 <= dead <= 1):
            raise UsageError(f"max_dead is {kind_of(dead)}: expected a share of units, from 0 to 1")
        if batch is not None:
            check_count(batch, "as min_batch= a batch size")
            if options.setdefault("batch_size", batch) != batch:
                raise UsageError(
                    f"min_batch={batch} and batch_size={options['batch_size']} contradict each other",
                    hint="Both state the batch size of the training: give one of them.",
                )
        return cls(dead, batch)

    def applied(self, settings: Settings) -> Settings:
        """Settings in which the rules fail where a limit is broken, and are selected."""
        levels, options = dict(settings.levels), dict(settings.options)
        if self.max_dead is not None:
            levels[DEAD] = "error"
            if self.max_dead < 1:
                levels[ALL_DEAD] = "error"
            # Every unit counts: the limit was set for this model.
            options[DEAD] = {
                **options.get(DEAD, {}),
                "warning": self.max_dead,
                "error": self.max_dead,
                "units": 1,
                "observations": 1,
                "batches": 1,
            }
        if self.min_batch is not None:
            levels[SMALL] = "error"
        return replace(settings, levels=levels, options=options)

    def unmet(self, report: Report) -> list[str]:
        """Reasons why a limit is broken, or could not be judged, that are no findings."""
        lines = []
        if self.max_dead is not None:
            lines += _unjudged(report, "max_dead", DEAD)
        if self.min_batch is not None:
            lines += _unjudged(report, "min_batch", SMALL) or self._small(report)
        return lines

    def _small(self, report: Report) -> list[str]:
        """BatchNorms that need more, or of which nothing is known."""
        assert self.min_batch is not None
        said = {path for finding in report.findings if finding.code == SMALL for path in finding.modules}
        said |= {
            path for one in report.suppressed if one.finding.code == SMALL for path in one.finding.modules
        }
        lines = []
        for target in report.targets:
            has_norms = any("BatchNorm" in kind for kind in target.norms)
            if has_norms and not target.batch_sizes:
                lines.append(
                    f"min_batch could not be judged: no BatchNorm of `{target.name}` normalized by its "
                    "batches (call model.train(), and pass data that are real)"
                )
            for row in target.batch_sizes:
                if row.passes > self.min_batch and row.module not in said:
                    instead = f", or {row.instead}" if row.instead else ""
                    lines.append(
                        f"`{row.module}` is not fit for batches of {self.min_batch}: it needs {row.passes}"
                        f"{instead} (measured on {row.samples} samples)"
                    )
        return lines


def _unjudged(report: Report, limit: str, code: str) -> list[str]:
    """Say that the rule behind a limit did not run."""
    results = [result for result in report.results if result.code == code]
    if not results and not report.problems:
        return [f"{limit} could not be judged: {code} is ignored"]
    return [
        f"{limit} could not be judged: {result.reason}" for result in results if result.outcome == "skipped"
    ]
