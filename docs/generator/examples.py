"""The bad example of a rule's page, put through normdoctor, and what that prints."""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from pathlib import Path

from click.testing import CliRunner

from generator.markdown import fence
from normdoctor.cli import main
from normdoctor.findings import Confidence
from normdoctor.output import render
from normdoctor.output.style import Style
from normdoctor.rules.base import Rule
from normdoctor.testing import check_file

FILE = "model.py"
#: Variables that would change what is printed.
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "FORCE_COLOR": None, "NORMDOCTOR_OUTPUT_FORMAT": None}
#: What `normdoctor check` can be told by an option, where the file of the example defines it.
OPTIONS = ("loss", "data", "reference")


def shown(rule: type[Rule], source: str) -> str:
    """What normdoctor prints about an example, in a fence, with what was done for it."""
    with (
        tempfile.TemporaryDirectory(prefix="normdoctor-") as folder,
        contextlib.chdir(folder),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch's own, with paths of this machine
        Path(FILE).write_text(source, encoding="utf-8")
        if re.search(r"^def train\(watch\)", source, re.MULTILINE):
            return _watched(rule, source)
        if _defines(source, "labels"):
            return _from_python(rule, source)
        return _from_shell(rule, source)


def _from_shell(rule: type[Rule], source: str) -> str:
    words = ["check", FILE, *([] if rule.about_run else ["--select", rule.code])]
    for name in OPTIONS:
        if _defines(source, name):
            words += [f"--{name}", f"{FILE}:{name}"]
    result = CliRunner().invoke(main, [*words, "-q"], env=PLAIN)
    if rule.code not in result.output:
        words += ["--min-confidence", "low"]
        result = CliRunner().invoke(main, [*words, "-q"], env=PLAIN)
    text = result.output.strip()
    assert f"[{rule.code}]" in text, f"{rule.code}: normdoctor {' '.join(words)} -q printed\n{text}"
    return fence("console", f"$ normdoctor {' '.join([*words, '-q'])}\n{text}")


def _from_python(rule: type[Rule], source: str) -> str:
    return _report(rule, source, "`normdoctor.check(model, inputs, loss=loss, labels=labels)` finds:")


def _watched(rule: type[Rule], source: str) -> str:
    said = "With `train(watch)` run in a `with normdoctor.watch(model, every=1) as watch:`, the report says:"
    return _report(rule, source, said)


def _report(rule: type[Rule], source: str, said: str) -> str:
    report = check_file(Path(FILE), source, select=[rule.code], min_confidence=str(Confidence.LOW))
    text = render(report, "full", Style(verbosity=-1))
    assert f"[{rule.code}]" in text, f"{rule.code}: printed\n{text}"
    return f"{said}\n\n{fence('text', text)}"


def _defines(source: str, name: str) -> bool:
    return bool(re.search(rf"^(?:def )?{name}\b(?: = |\()", source, re.MULTILINE))
