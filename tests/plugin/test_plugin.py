"""The fixture and the markers, as the test suite of a user runs them."""

import pytest

from .suites import LINES, NETS, OUTCOMES, SUITE

pytest_plugins = ["pytester"]

STRICT = ("--strict-markers", "--strict-config", "-W", "error")
WAYS = {"plain": ("-p", "no:randomly"), "two-workers-random-order": ("-n", "2")}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_suite(pytester, way):
    if way != "plain":
        pytest.importorskip("xdist")
        pytest.importorskip("pytest_randomly")
    pytester.makepyfile(nets=NETS, test_suite=SUITE)
    result = pytester.runpytest_subprocess(*WAYS[way], *STRICT, "-rs", "--junit-xml=junit.xml")
    result.assert_outcomes(**OUTCOMES)
    for name, lines in LINES.items():
        result.stdout.fnmatch_lines([f"*_ {name} _*", *lines])
    # The tracebacks of failures stop at the user's line, and what they say is not said twice.
    result.stdout.no_fnmatch_line("*normdoctor/*.py*")
    assert result.stdout.str().count("-- normdoctor --") == 2
    result.stdout.fnmatch_lines_random(
        ["normdoctor: *errors, *in * models (*fixable)*", "SKIPPED*no CUDA device"]
    )
    junit = (pytester.path / "junit.xml").read_text(encoding="utf-8")
    assert '<property name="normdoctor.warnings" value="' in junit
    assert '<property name="normdoctor.errors" value="1"' in junit


def test_the_fixture_is_listed_with_a_sentence(pytester):
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["normdoctor * -- *", "    Check models: *"])
    result.stdout.fnmatch_lines(["normdoctor_model -- *", "    The model of each target *"])


CONFTEST = """
import sys

def pytest_unconfigure(config):
    ours = sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "normdoctor", "msgspec"))
    print("LOADED", *ours)
"""
BARE = "import pytest\n\n@pytest.mark.parametrize('x', [1, 2])\ndef test_it(x, tmp_path):\n    assert x"


@pytest.mark.parametrize("suite", ["", BARE], ids=["empty", "without-torch"])
def test_a_suite_that_does_not_use_it_pays_nothing(pytester, suite):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(suite)
    arguments = ["-q"] if suite else ["-q", "--collect-only"]
    result = pytester.runpytest_subprocess(*arguments, "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*LOADED normdoctor normdoctor.pytest_plugin"])
    assert "normdoctor:" not in result.stdout.str()


def test_opt_out(pytester):
    pytester.makepyfile("def test_it(normdoctor): pass")
    result = pytester.runpytest_subprocess("-p", "no:normdoctor")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'normdoctor' not found*"])


def test_arguments_of_the_marker_are_checked_before_any_test(pytester):
    pytester.makepyfile("""
import pytest

def test_other(): pass

@pytest.mark.normdoctor(max_ded=0.1)
def test_it(normdoctor): pass
""")
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [
        "ERROR: *test_it: the marker normdoctor: unknown argument `max_ded`",
        "*Did you mean `max_dead`*",
    ]
    result.stderr.fnmatch_lines(lines)
    result.stdout.no_fnmatch_line("*passed*")


def test_arguments_of_markers_on_workers_and_of_models(pytester):
    pytest.importorskip("xdist")
    pytester.makepyfile(
        test_a="import pytest\n@pytest.mark.normdoctor('ND1')\ndef test_it(normdoctor): pass",
        test_b="def test_none_named(normdoctor_model): pass",
    )
    result = pytester.runpytest_subprocess("-n", "1", "-p", "no:randomly")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*marker normdoctor takes keyword arguments only*", "*normdoctor_model: no model is named*"]
    )
    pytester.makepyfile(
        test_a="import pytest\n@pytest.mark.normdoctor_models(7)\ndef test_it(normdoctor_model): pass",
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*normdoctor_models takes target strings, found 7*"])
