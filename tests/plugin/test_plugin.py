"""The fixture, as the test suite of a user runs it: in processes of their own, as torch loads only once."""

import pytest

pytest_plugins = ["pytester"]

MODELS = """
import pytest
import torch
from torch import nn

def healthy():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)
    )

def sick():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

def dying():
    model = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))
    with torch.no_grad():
        model[0].bias[:6] = -1000.0
    return model

X = torch.randn(2, 3, 8, 8)
DATA = [(torch.randn(600, 8), torch.zeros(600)) for _ in range(2)]
"""


@pytest.fixture
def suite(pytester):
    def write(text):
        pytester.makepyfile(MODELS + text)
        return pytester

    return write


SUITE = """
def test_healthy(normdoctor):
    report = normdoctor.assert_healthy(healthy(), inputs=X)
    assert report.ok and report.coverage.startswith("1 norm layer")

def test_info_does_not_fail(normdoctor):
    assert [f.code for f in normdoctor.assert_healthy(sick(), inputs=X).findings] == ["ND101"]

def test_ignored(normdoctor):
    normdoctor.assert_healthy(sick(), X, fail_on="info", ignore="ND101")

def test_selected(normdoctor):
    normdoctor.assert_healthy(sick(), X, fail_on="info", select=["ND201"])

def test_watch(normdoctor):
    model = dying()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for x, _ in DATA:
            model(x)
            w.step()
    assert [f.code for f in w.report().findings] == ["ND601"]

def test_data_is_what_shows_it(normdoctor):
    assert normdoctor.assert_healthy(dying(), DATA[0][0], ignore="ND403").findings == ()

def test_sick(normdoctor):
    normdoctor.assert_healthy(sick(), inputs=X, fail_on="info")

def test_dying(normdoctor):
    normdoctor.assert_healthy(dying(), inputs=DATA[0][0], data=DATA)

def test_not_examined(normdoctor):
    normdoctor.assert_healthy(healthy(), inputs=torch.randn(2, 5, 8, 8))

def test_misspelt(normdoctor):
    normdoctor.assert_healthy(healthy(), inputs=X, fail_on="warn")
"""


def test_a_suite(suite):
    result = suite(SUITE).runpytest_subprocess()
    result.assert_outcomes(passed=6, failed=4)
    result.stdout.fnmatch_lines(
        [
            "*_ test_sick _*",
            '>       normdoctor.assert_healthy(sick(), inputs=X, fail_on="info")',
            "E       normdoctor.report.NormDoctorFailure: 1 finding *",
            "E       *ND101 *the bias of `0`*",
            "*_ test_dying _*",
            "E *ND601*6 of 10 units of `1` (60%) were never active in 1200 observations*",
            "*_ test_not_examined _*",
            "E *NormDoctorFailure*",
            "E *RuntimeError*",
            "*_ test_misspelt _*",
            "E *fail_on is one of *got 'warn'*",
            "E *Did you mean `warning`?",
        ]
    )
    # The tracebacks of failures stop at the user's line.
    result.stdout.no_fnmatch_line("*report.py*")


def test_the_fixture_is_listed_with_a_sentence(pytester):
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["normdoctor * -- *", "    Check models: *"])


CONFTEST = """
import sys

def pytest_unconfigure(config):
    ours = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "normdoctor"))
    print("LOADED", *ours)
"""


def test_a_suite_that_does_not_use_it_pays_nothing(pytester):
    pytester.makeconftest(CONFTEST)
    result = pytester.runpytest_subprocess("--collect-only", "-q", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*LOADED normdoctor normdoctor.pytest_plugin"])


def test_opt_out(pytester):
    pytester.makepyfile("def test_it(normdoctor): pass")
    result = pytester.runpytest_subprocess("-p", "no:normdoctor")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'normdoctor' not found*"])


def test_under_xdist(suite):
    pytest.importorskip("xdist")
    result = suite("""
def test_healthy(normdoctor):
    normdoctor.assert_healthy(healthy(), inputs=X)

def test_sick(normdoctor):
    normdoctor.assert_healthy(sick(), inputs=X, fail_on="info")
""").runpytest_subprocess("-n", "1", "--strict-markers", "--strict-config")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *NormDoctorFailure: 1 finding *"])
