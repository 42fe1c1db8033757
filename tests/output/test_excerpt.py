"""Source excerpts: the right characters are underlined, whatever the line holds."""

from __future__ import annotations

import linecache

import pytest

from normdoctor.facts import Location
from normdoctor.output.excerpt import MAX_WIDTH, excerpt
from normdoctor.output.style import Style
from normdoctor.sources import source_lines


def shown(source, text, place, *related, style=None):
    source.write_text(text, encoding="utf-8")
    return excerpt(place, related, style or Style(), "red")


@pytest.mark.parametrize(
    ("line", "needle"),
    [
        ("self.bn = nn.BatchNorm2d(c)", "nn.BatchNorm2d(c)"),
        ("\t\tself.bn = nn.BatchNorm2d(c)", "nn.BatchNorm2d(c)"),
        ("x = 'a\u0301' or BatchNorm2d(c)", "BatchNorm2d(c)"),
        ("x = '\u00e9\u00e9'; y = norm(c)", "norm(c)"),
        ("x = '\x1b[0m'; y = norm(c)", "norm(c)"),
        ("norm(c)", "norm(c)"),
    ],
)
@pytest.mark.parametrize("unicode", [True, False])
def test_underline(source, line, needle, unicode):
    start = line.index(needle) + 1
    style = Style(unicode=unicode)
    lines = shown(source, f"{line}\n", Location("model.py", 1, start, 1, start + len(needle)), style=style)
    code, under = lines[2][5:], lines[3][5:]
    marked = "".join(char for char, mark in zip(code, under, strict=False) if mark == "^")
    assert marked == needle


def test_a_place_beyond_the_file(source):
    for place in (
        Location("model.py", 99, 5, 99, 9),
        Location("model.py", 1, 500, 1, 600),
        Location("model.py", 0),
    ):
        assert shown(source, "a = 1\n", place)[0].endswith(f"model.py:{place.line}:{place.column}")


def test_a_span_without_an_end_reaches_the_end_of_the_line(source):
    assert shown(source, "a = norm(c)   \n", Location("model.py", 1, 5))[3] == "   |     ^^^^^^^"


def test_far_lines_are_cut(source):
    line = "x = [" + "1, " * 200 + "norm()]"
    start = line.index("norm") + 1
    lines = shown(source, line + "\n", Location("model.py", 1, start, 1, start + 6))
    assert max(map(len, lines)) < MAX_WIDTH + 20


def test_lines_in_between_are_left_out(source):
    text = "\n".join(f"line{n}" for n in range(1, 30)) + "\n"
    lines = shown(
        source, text, Location("model.py", 20, 1, 20, 7), ("first", Location("model.py", 3, 1, 3, 6))
    )
    assert lines == [
        "  --> model.py:20:1",
        "   |",
        " 3 | line3",
        "   | ----- first",
        "...",
        "20 | line20",
        "   | ^^^^^^",
        "   |",
    ]


def test_the_file_is_read_anew(source):
    assert source_lines("model.py")
    source.write_text("changed = True  # and longer than before, so that the size differs too" * 20)
    assert source_lines("model.py")[0].startswith("changed")


def test_a_relative_name_is_not_looked_up_elsewhere(source):
    assert source_lines("json/decoder.py") == []
    assert source_lines("linecache.py") == []


def test_notebook_cells(monkeypatch):
    cell = "<ipython-input-1>"
    monkeypatch.setitem(linecache.cache, cell, (5, None, ["norm(c)\n"], cell))
    assert source_lines(cell) == ["norm(c)\n"]
    assert excerpt(Location(cell, 1, 1, 1, 8), (), Style(), "red")[2] == " 1 | norm(c)"
