"""The pytest plugin: the fixture `normdoctor`, markers, and `--normdoctor`, which collects the targets.

    def test_net(normdoctor):
        normdoctor.assert_healthy(Net(), inputs=torch.randn(8, 3, 32, 32))

Importing this module imports neither torch nor the rest of normdoctor: a suite that uses nothing of it
pays nothing for it. What the hooks do stands in `normdoctor.suite`, which is imported on first use.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from normdoctor.suite.fixture import Doctor
    from normdoctor.suite.state import State

#: The test that runs at the moment, for what a fixture of a wider scope checks.
_CURRENT = pytest.StashKey[pytest.Item]()
_STATE = pytest.StashKey["State"]()

_MARKERS = (
    "normdoctor(**options): what `normdoctor.check` and `assert_healthy` take, as defaults for the fixture "
    'in this test: select, ignore, fail_on, inputs, ...; device="cuda" skips the test where there is none.',
    "normdoctor_models(*targets): run the test for each of these models, given as the argument "
    "`normdoctor_model`.",
    "normdoctor_cuda: skip the test where torch finds no CUDA device.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--normdoctor` and its companions."""
    group = parser.getgroup("normdoctor", "checks of PyTorch models")
    group.addoption(
        "--normdoctor",
        action="store_true",
        help="Check the targets of [tool.normdoctor] too, with a test for each rule and target.",
    )
    for name, verb in (("select", "Run only these rules"), ("ignore", "Do not run these rules")):
        group.addoption(
            f"--normdoctor-{name}", action="append", default=[], metavar="RULES", help=f"{verb} (codes, ...)."
        )
    group.addoption(
        "--normdoctor-fail-on",
        choices=("error", "warning", "info", "never"),
        help="The severity from which on findings fail a test (default: warning).",
    )
    group.addoption(
        "--normdoctor-report",
        action="append",
        default=[],
        metavar="PATH",
        help="Write all that was found to this file: .json, .html, .sarif, .xml (junit), .md or .txt.",
    )
    group.addoption(
        "--normdoctor-show",
        choices=("summary", "full", "none"),
        default="summary",
        help="How much to print: a line at the end (summary), a table and source lines (full), or none.",
    )
    group.addoption(
        "--normdoctor-update-baseline",
        action="store_true",
        help="Write the findings in the targets to the baseline that [tool.normdoctor] names.",
    )
    parser.addini("normdoctor_targets", "Targets for --normdoctor and for `normdoctor_model`.", "linelist")
    parser.addini("normdoctor_fail_on", "The severity from which on findings fail a test.", "string", "")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; check the options of ours that are given."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    option = config.option
    if (
        option.normdoctor
        or option.normdoctor_select
        or option.normdoctor_ignore
        or option.normdoctor_report
        or option.normdoctor_update_baseline
    ):
        from normdoctor.suite.setup import configure

        configure(_state(config))


def _state(config: pytest.Config) -> State:
    """What the plugin knows in this run."""
    if _STATE not in config.stash:
        from normdoctor.suite.state import State

        config.stash[_STATE] = State(config, lambda: config.stash.get(_CURRENT, None))
    return config.stash[_STATE]


@pytest.fixture(scope="session")
def normdoctor(pytestconfig: pytest.Config) -> Doctor:
    """Check models: `normdoctor.assert_healthy(model, inputs=x)`, `.check(...)`, `.watch(model)`."""
    from normdoctor.suite.fixture import Doctor

    return Doctor(_state(pytestconfig))


@pytest.fixture
def normdoctor_model(request: pytest.FixtureRequest) -> nn.Module:
    """The model of each target that the marker `normdoctor_models` or the configuration names."""
    from normdoctor.suite.models import build

    return build(_state(request.config), getattr(request, "param", None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `normdoctor_model` for each model."""
    if "normdoctor_model" in metafunc.fixturenames:
        from normdoctor.suite.models import parametrize

        parametrize(_state(metafunc.config), metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the items of the targets, before others select among them; check the arguments of our marker."""
    if config.option.normdoctor:
        from normdoctor.suite.items import collect

        items += collect(_state(config), session)
    marked = [item for item in items if item.get_closest_marker("normdoctor")]
    if marked:
        from normdoctor.suite.marks import validate

        validate(marked, config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember the test that runs, and where a test with the fixture builds its models."""
    item.config.stash[_CURRENT] = item
    if "normdoctor" not in getattr(item, "fixturenames", ()):
        return (yield)
    from normdoctor.suite.models import recorded

    with recorded(_state(item.config)):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test for a device that is not there."""
    if item.get_closest_marker("normdoctor_cuda") or item.get_closest_marker("normdoctor"):
        from normdoctor.suite.marks import prepare

        prepare(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what was found in a test beside its outcome."""
    report = yield
    state = item.config.stash.get(_STATE, None)
    if state is not None:
        from normdoctor.suite.beside import complete

        complete(state, item, report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> Sequence[str] | None:
    """Explain `assert report.findings == ()` in the words of the report."""
    if op != "==" or not any(_is_ours(side) for side in (left, right)):
        return None
    from normdoctor.suite.text import explain

    return explain(left, right)


def _is_ours(value: object) -> bool:
    """Is it a report, or a list or tuple of findings?"""
    one: Any = value[0] if isinstance(value, list | tuple) and value else value
    names = {"normdoctor.findings": "Finding", "normdoctor.report": "Report"}
    return names.get(type(one).__module__) == type(one).__name__


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which targets are checked, where any are."""
    if not config.option.normdoctor:
        return None
    from normdoctor.suite.setup import header

    return header(_state(config))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take in what a worker of xdist has found."""
    sent = getattr(node, "workeroutput", {}).get("normdoctor")
    if sent or (error and node.config.stash.get(_STATE, None)):
        from normdoctor.suite.closing import receive

        receive(_state(node.config), sent)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports and the baseline; a worker sends what it found to the controller."""
    state = session.config.stash.get(_STATE, None)
    if state is not None:
        from normdoctor.suite.closing import finish

        finish(state, session, exitstatus)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say in a line what was found."""
    state = config.stash.get(_STATE, None)
    if state is not None:
        from normdoctor.suite.closing import summarize

        summarize(state, terminalreporter)
