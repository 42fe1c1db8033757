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

        Further options (`data`, `select`, `ignore`, `loss`, ...) are those of `normdoctor.check`. A model
        whose forward could not be examined fails too: that nothing was found is then no sign of health.
        The failure is a `normdoctor.report.NormDoctorFailure`, an AssertionError.
        """
        __tracebackhide__ = True
        from normdoctor.config import FAIL_ON
        from normdoctor.errors import UsageError, near
        from normdoctor.report import NormDoctorFailure

        if fail_on not in FAIL_ON:
            expected = ", ".join(FAIL_ON)
            raise UsageError(
                f"fail_on is one of {expected}; got {fail_on!r}", hint=near(str(fail_on), list(FAIL_ON))
            )
        report = self.check(model, inputs, **options)
        try:
            report.raise_for_findings(fail_on)
        except NormDoctorFailure as failure:
            # From here, so that the traceback ends at the line of the test.
            raise failure.with_traceback(None) from None
        return report

    def watch(self, model: Any, **options: Any) -> Watch:
        """Return `normdoctor.watch(model, **options)`, to be used with `with`."""
        from normdoctor.probing.monitor import watch

        return watch(model, **options)


@pytest.fixture(scope="session")
def normdoctor() -> Doctor:
    """Check models: `normdoctor.assert_healthy(model, inputs=x)`, `.check(...)`, `.watch(model)`."""
    return Doctor()
