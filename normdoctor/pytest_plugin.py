"""The pytest fixture `normdoctor`: check, assert and watch models inside a test suite.

    def test_net(normdoctor):
        normdoctor.assert_healthy(Net(), inputs=torch.randn(8, 3, 32, 32))

Importing this module imports neither torch nor the rest of normdoctor: a suite that does not use the
fixture pays nothing for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from normdoctor.probing.monitor import Watch
    from normdoctor.report import Report


class NormDoctorFailure(AssertionError):  # noqa: N818  (pytest calls this a failure, not an error)
    """A model is not healthy; `report` holds everything that was found."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


class Doctor:
    """What the fixture hands to a test. It holds no state."""

    def check(self, model: Any, inputs: Any = None, **options: Any) -> Report:
        """Return `normdoctor.check(model, inputs, **options)`, whatever it finds."""
        from normdoctor.doctor import check

        return check(model, inputs, **options)

    def assert_healthy(
        self, model: Any, inputs: Any = None, *, fail_on: str = "warning", **options: Any
    ) -> Report:
        """Fail the test if there is a finding of level `fail_on` or above; return the report.

        Further options (`data`, `select`, `ignore`, `loss`, ...) are those of `normdoctor.check`.
        A model that could not be examined at all fails too: nothing found is then no sign of health.
        """
        __tracebackhide__ = True
        from normdoctor.errors import UsageError
        from normdoctor.findings import Severity

        levels = [str(level) for level in Severity]
        if fail_on not in levels:
            raise UsageError(f"fail_on is one of {', '.join(levels)}; got {fail_on!r}")
        report = self.check(model, inputs, **options)
        failures = [f for f in report.findings if f.severity.rank >= Severity(fail_on).rank]
        if failures:
            raise NormDoctorFailure(_render(failures, fail_on), report)
        return report

    def watch(self, model: Any, **options: Any) -> Watch:
        """Return `normdoctor.watch(model, **options)`, to be used with `with`."""
        from normdoctor.probing.monitor import watch

        return watch(model, **options)


@pytest.fixture(scope="session")
def normdoctor() -> Doctor:
    """Check models: `normdoctor.assert_healthy(model, inputs=x)`, `.check(...)`, `.watch(model)`."""
    return Doctor()


def _render(findings: list[Any], fail_on: str) -> str:
    lines = []
    for finding in findings:
        place = finding.location
        where = f"{place.file}:{place.line}:{place.column}: " if place else ""
        lines.append(f"  {where}{finding.code} {finding.name}: {finding.message}")
    count = f"{len(findings)} finding" + "s" * (len(findings) != 1)
    return "\n".join([f"{count} of level {fail_on} or above", *lines])
