"""The problem matcher, on what the format `concise` prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner

from normdoctor.cli import main

ROOT = Path(__file__).parents[2]
MATCHER = json.loads((ROOT / "docs/_static/normdoctor-matcher.json").read_text(encoding="utf-8"))


def test_every_finding_is_matched_and_nothing_else(monkeypatch):
    monkeypatch.chdir(ROOT)
    (matcher,) = MATCHER["problemMatcher"]
    (pattern,) = matcher["pattern"]
    words = ["check", "examples/faulty_net.py", "--isolated", "--min-confidence", "low"]
    kinds = ["--output-format", "concise"]
    done = CliRunner().invoke(main, [*words, *kinds])
    report = json.loads(CliRunner().invoke(main, [*words, "--output-format", "json"]).stdout)
    lines = done.stdout.splitlines()
    matches = [match for line in lines if (match := re.match(pattern["regexp"], line))]
    parts = ("file", "line", "column", "code", "message")
    found = [tuple(match[pattern[part]] for part in parts) for match in matches]
    expected = [
        (f["location"]["file"], str(f["location"]["line"]), str(f["location"]["column"]), f["code"])
        for f in report["findings"]
    ]
    assert [one[:4] for one in found] == expected
    assert len(expected) >= 4
    for one, finding in zip(found, report["findings"], strict=True):
        assert one[4].startswith(f"{finding['name']}: {finding['message']}")
    assert len(lines) > len(matches)
    assert matcher["severity"] == "warning"  # the lines name none


def test_the_page_shows_the_same_matcher():
    page = (ROOT / "docs/howto/editor.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (task,) = json.loads(block)["tasks"]
    (matcher,) = MATCHER["problemMatcher"]
    assert task["problemMatcher"]["pattern"] == matcher["pattern"]
    assert task["problemMatcher"]["owner"] == matcher["owner"]


def test_windows_paths_and_odd_lines():
    pattern = MATCHER["problemMatcher"][0]["pattern"][0]["regexp"]
    assert re.match(pattern, r"C:\models\net.py:3:7: ND101 bias-before-norm: said")[1] == r"C:\models\net.py"
    assert re.match(pattern, "normdoctor.toml:1:1: ND003 stale-baseline-entry: said")
    for line in ("note: inputs declared: x: float32 (8, 3)", "net.py::Net: ND004 x", "Error: net.py:3: no"):
        assert re.match(pattern, line) is None
