"""Colour, width and what is made of foreign text."""

from __future__ import annotations

import io

import msgspec
import pytest

from normdoctor.output.style import Style, text_width, wants_color, wants_unicode
from normdoctor.output.summary import last_line
from normdoctor.output.table import shorten, table
from normdoctor.report import Report, RuleResult


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("choice", "terminal", "environ", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_color(choice, terminal, environ, expected):
    assert wants_color(choice, Terminal() if terminal else io.StringIO(), environ) is expected


def test_unicode():
    assert wants_unicode(Terminal())
    assert not wants_unicode(io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))


def test_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert text_width(io.StringIO()) == 80
    assert text_width(io.StringIO(), 120) == 120
    monkeypatch.setenv("COLUMNS", "100")
    assert text_width(io.StringIO()) == 100


def test_paint():
    assert Style(color=True).paint("x", "bold", "red") == "\x1b[1;31mx\x1b[0m"
    assert Style().paint("x", "bold") == "x"


def test_clean():
    text = "a\tb\x1b[31m\r\n\x9b\u202ec\u00e9"
    assert Style().clean(text) == "a\tb\\x1b[31m\\r\\n\\x9b\\u202ec\u00e9"
    assert Style(unicode=False).clean("\u00e9") == "\\xe9"
    assert Style().clean("\udc80") == "\\udc80"


def results(**counts):
    return Report(
        results=tuple(
            RuleResult(target="m.py:Net", code="ND101", name="x", outcome=outcome)
            for outcome, count in counts.items()
            for _ in range(count)
        )
    )


@pytest.mark.parametrize(
    ("counts", "words", "look"),
    [
        ({"passed": 10, "failed": 2, "skipped": 2}, "2 failed, 10 passed, 2 skipped in 0.41s", 31),
        ({"passed": 1}, "1 passed in 0.41s", 32),
        ({"passed": 1, "noted": 1}, "1 noted, 1 passed in 0.41s", 33),
        ({"passed": 1, "skipped": 1}, "1 passed, 1 skipped in 0.41s", 32),
        ({"skipped": 1}, "1 skipped in 0.41s", 33),
        ({"error": 1, "passed": 1}, "1 passed, 1 error in 0.41s", 31),
        ({"error": 2}, "2 errors in 0.41s", 31),
        ({}, "no rules ran in 0.41s", 33),
    ],
)
def test_last_line(counts, words, look):
    for width in (60, 61, 80, 133):
        line = last_line(results(**counts), 0.41, Style(width=width))
        assert line.strip("=") == f" {words} "
        assert width - 1 <= len(line) <= width
    assert last_line(results(**counts), 0.41, Style(color=True)).startswith(f"\x1b[{look}m==")
    assert last_line(results(**counts), 0.41, Style(width=5)) == f"= {words} ="


def test_pytest_would_write_the_same_line():
    from _pytest._io import TerminalWriter
    from _pytest.terminal import TerminalReporter  # noqa: F401  (documents where the form is from)

    stream = io.StringIO()
    writer = TerminalWriter(stream)
    writer.fullwidth = 80
    writer.sep("=", "2 failed, 10 passed in 0.41s")
    ours = last_line(results(failed=2, passed=10), 0.41, Style(width=80))
    assert stream.getvalue().rstrip("\n") == ours


HEADERS = ("layer", "what", "params")
ROWS = [("encoder.layers.10.attention.output.norm", "LayerNorm", "1,536"), ("head", "Linear", "")]


def test_table_fits():
    assert table(ROWS, HEADERS, 200, right=("params",)).splitlines() == [
        "layer                                    what       params",
        "---------------------------------------  ---------  ------",
        "encoder.layers.10.attention.output.norm  LayerNorm   1,536",
        "head                                     Linear",
    ]
    assert table(ROWS, HEADERS, 42, right=("params",)).splitlines() == [
        "layer                    what       params",
        "-----------------------  ---------  ------",
        "encoder..n.output.norm  LayerNorm   1,536".replace("encoder..n", "encoder..on"),
        "head                     Linear",
    ]
    for width in range(30, 70):
        assert all(len(line) <= width for line in table(ROWS, HEADERS, width, right=("params",)).splitlines())


def test_empty_columns_are_left_out():
    assert table([("a", "", "1")], HEADERS, 80).splitlines()[0] == "layer  params"


def test_shorten():
    assert shorten("abcdefghij", 8) == "abcdef.."
    assert shorten("abcdefghij", 8, middle=True) == "ab..ghij"
    assert shorten("abc", 3) == "abc"


def test_counts_include_targets_that_failed():
    from normdoctor.report import Problem

    report = msgspec.structs.replace(results(passed=1), problems=(Problem(target="x", message="y"),))
    assert report.counts() == {"passed": 1, "error": 1}
