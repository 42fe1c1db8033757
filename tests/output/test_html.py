"""The HTML report, as text; `python tests/output/test_html.py` writes the golden file anew."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normdoctor
from normdoctor.facts import InputFact, Location, TensorFact
from normdoctor.findings import Confidence, Finding, Fix, Severity, Site
from normdoctor.output import format_names, render
from normdoctor.output.charts import charts
from normdoctor.output.page import cards, engine, rulepages
from normdoctor.output.page.theme import PAIRS, TOKENS
from normdoctor.output.style import UNSAFE, Style
from normdoctor.report import Problem, Report, RuleResult, TargetSummary
from normdoctor.suppression import Suppressed
from normdoctor.views.batchsizes import BatchSizes
from normdoctor.views.norms import NormRow
from normdoctor.views.profile import ProfilePoint

GOLDEN = Path(__file__).parent / "golden"
VOID = {"meta", "link", "input", "wbr"}


def sibling(name):
    spec = importlib.util.spec_from_file_location(f"_html_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORMATS, MACHINES = sibling("test_formats"), sibling("test_machine_formats")


def one_of(text):
    """A report in which this text stands at every place that holds a name, and nothing else."""
    place = Location(f"{text}.py", 3, 1)
    finding = Finding(
        code="ND101", name=text, severity=Severity.WARNING, confidence=Confidence.HIGH, message=text,
        modules=(text, f"{text}.b"), location=place, related=((text, Location(f"{text}2.py", 1)),),
        evidence={text: text, "list": [text], "nested": {text: 1.5}}, target=text, help=text,
        sites=(Site(module=text, evidence={"a": text}, call=place), Site(module=f"{text}.b")),
        fix=Fix(title=text),
    )  # fmt: skip
    point = {
        "module": text,
        "kind": "relu",
        "role": "activation",
        "mean": 0.1,
        "variance": 1.0,
        "between": 1.0,
    }
    sizes = {
        "call": 0,
        "channels": 4,
        "positions": 2,
        "samples": 8,
        "per_sample": 2.0,
        "batch": 4,
        "passes": 8,
    }
    target = TargetSummary(
        name=text,
        recorded="meta",
        inputs=(InputFact(name=text, tensor=TensorFact((2, 3)), source=text),),
        notes=(text,),
        norms={text: 1},
        profile=tuple(ProfilePoint(site=text, depth=depth, **point) for depth in range(2)),
        batch_sizes=(BatchSizes(module=text, instead=text, **sizes),),
        inventory=(NormRow(module=text, type=text, kind="batch_norm", location=place),),
    )
    results = [("ND101", "failed"), ("ND102", "skipped"), ("ND103", "error"), ("ND104", "passed")]
    return Report(
        findings=(finding,),
        results=tuple(
            RuleResult(target=text, code=code, name=text, outcome=outcome, reason=text, detail=text)
            for code, outcome in results
        ),
        targets=(target, msgspec.structs.replace(target, name=f"{text}2")),
        suppressed=(Suppressed(finding=finding, by=text, reason=text),),
        known=(finding,),
        problems=(Problem(target=text, message=text, hint=text, detail=text),),
        environment={text: text},
    )


REPORTS = {
    "golden": FORMATS.report,
    "clean": lambda: FORMATS.report(findings=(), suppressed=(), known=(), problems=(), hidden=0),
    "every place": lambda: one_of("name"),
    **MACHINES.REPORTS,
}


class Page(HTMLParser):
    """Reads a page and keeps what can be wrong with it."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.references, self.headings = [], [], [], []
        self.kinds, self.loads, self.faults, self.controls, self.said = set(), [], [], [], []
        self.content = {"style": [], "script": []}
        self.policy = ""
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.check(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.check(tag, attrs)

    def check(self, tag, attrs):
        known = dict(attrs)
        if len(known) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        self.kinds.add((tag, *sorted(known)))
        self.ids += [known["id"]] if "id" in known else []
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            self.references += known.get(name, "").split()
        if known.get("href", "").startswith("#"):
            self.references.append(known["href"][1:])
        elif "href" in known:
            self.loads.append(known["href"])
        self.loads += [
            known[name] for name in ("src", "srcset", "data", "action", "background") if name in known
        ]
        if tag in ("input", "select") and known.get("type") != "checkbox":
            self.controls.append(known.get("id"))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"]
        if any(name.startswith("on") for name in known):
            self.faults.append(f"{tag} has a handler")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] in self.content:
            self.content[self.open[-1]].append(data)
        else:
            self.said.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.said).split())


def sound(page):
    assert page.faults == []
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.references) <= set(page.ids)
    assert set(page.controls) <= set(page.references)
    assert [link for link in page.loads if link != "data:,"] == []
    for text in page.content["style"]:
        assert "url(" not in text
        assert "@import" not in text


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def golden():
    """The page without style sheet and script."""
    text = render(FORMATS.report(), "html")
    text = re.sub(r"<(style|script)>.*?</\1>", r"<\1></\1>", text, flags=re.DOTALL)
    text = re.sub(r"sha256-[\w+/=]+", "sha256", text)
    return text.replace(f"normdoctor {__import__('normdoctor').__version__}", "normdoctor 0")


def test_golden(monkeypatch):
    monkeypatch.setattr(rulepages, "find_rule", lambda code: None)
    monkeypatch.setattr(cards, "find_rule", lambda code: None)
    assert golden() == (GOLDEN / "html.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("which", REPORTS)
def test_pages_are_sound(which):
    page = Page(render(REPORTS[which](), "html"))
    sound(page)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(later <= earlier + 1 for earlier, later in steps)


def test_the_example_of_the_documentation():
    file = Path(__file__).parents[2] / "docs" / "_static" / "example-report.html"
    if not file.exists():
        pytest.skip("the documentation is not here")
    text = file.read_text(encoding="utf-8")
    sound(Page(text))
    assert "examples/faulty_net.py:model" in text
    assert len(text) < 400 * 2**10


@pytest.mark.parametrize("which", REPORTS)
def test_pages_in_ascii_say_the_same(which):
    plain, short = (Page(render(REPORTS[which](), "html", Style(unicode=known))) for known in (True, False))
    assert plain.text.replace("\ufffe", "") == short.text  # no character, and Python's parser drops it
    assert plain.ids == short.ids


def test_the_policy_knows_the_script_and_the_style():
    page = Page(render(FORMATS.report(), "html"))
    for kind in ("style", "script"):
        (text,) = page.content[kind]
        mark = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{mark}'" in page.policy
    assert page.policy.startswith("default-src 'none'; ")
    assert "http" not in page.policy


def test_what_a_page_says():
    page = Page(render(FORMATS.report(), "html"))
    for text in (
        "1 target could not be examined.",
        "1 error, 3 warnings, 1 info in 14 normalization layers (13 BatchNorm2d, 1 LayerNorm), 5 rules.",
        "no such file: other.py Did you mean `othr.py`?".replace("`", " ").replace("  ", " "),
        "5 of 6 rules ran",
        "the values of the weights are not known ND401 x",
        "bias=True here",
        "Fix set bias=False (safe)",
        "Known findings, from the baseline",
        "ND102 dropout-before-batchnorm m",
        "model.txt:4 why",
        "1 finding of lower confidence: see --min-confidence.",
        "normdoctor explain ND101",
        "# normdoctor: ignore[ND101] -- the reason",
        "float32 8x3x32x32 (inferred)",
        "Why is this bad?",
    ):
        assert text.replace(" .", ".") in page.text, text


def test_nobody_is_called_healthy():
    clean = REPORTS["clean"]()
    assert "Nothing was found by the rules that ran." in Page(render(clean, "html")).text
    full = msgspec.structs.replace(clean, results=clean.results[:2])
    assert "Nothing was found." in Page(render(full, "html")).text
    skipped = tuple(msgspec.structs.replace(one, outcome="skipped", reason="x") for one in clean.results)
    for results in ((), skipped):
        text = Page(render(msgspec.structs.replace(clean, results=results), "html")).text
        assert "Nothing was examined." in text
        assert "found" not in text
    noted = FORMATS.report(problems=(), fail_on="never")
    assert "The check passes: nothing fails it." in Page(render(noted, "html")).text
    assert "fine" not in Page(render(noted, "html")).said


def test_the_columns_of_a_finding_are_marked():
    text = render(FORMATS.report(), "html")
    line = (GOLDEN / "model.txt").read_text(encoding="utf-8").splitlines()[8]
    marked = re.findall(r'<span class="nd-no">9</span>(.*)', text)[0]
    assert Page(f"<p>{marked}</p>").text == line.strip()
    assert f'<mark class="nd-own">{line[18:35]}</mark>' in marked


def test_indentation_that_all_lines_share_is_left_out(tmp_path):
    file = tmp_path / "deep.py"
    file.write_text("\t\tx = a(\n\t\t\tb)\n    y\n", encoding="utf-8")
    place, other = Location(str(file), 1, 7, 2, 6), Location(str(file), 2, 4, 2, 5)
    finding = msgspec.structs.replace(one_of("a").findings[0], location=place, related=(("that", other),))
    text = render(Report(findings=(finding,)), "html")
    assert '<span class="nd-line">x = <mark class="nd-own">a(</mark></span>' in text
    assert '<span class="nd-line">    <mark class="nd-own">b)</mark></span>' in text
    assert '<span class="nd-said nd-also">    that</span>' in text


#: What has broken pages and terminals elsewhere.
HOSTILE = (
    "<script>alert(1)</script>", "</style>", "</script>", "<!--", "-->", "]]>", "<img src=x onerror=y>",
    '"', "'", "&lt;", "&", "\x1b[31m", "\x9b", "\x07", "\x00", "\r", "\n", "\t", "\u202e", "\u2066", "\u200f",
    "\u2028", "\ud800",
    "{{ 1 }}", "{% raw %}", "javascript:", "=1+1", "a", "1", ".", ":", "/", " ", "\u00e9", "\U0001f600",
)  # fmt: skip
names = st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4).map("".join)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(names)
@few
def test_names_are_text(name):
    known = Page(render(one_of("name"), "html"))
    page = Page(render(one_of(name), "html"))
    sound(page)
    assert page.kinds <= known.kinds | {("wbr",)}
    assert page.content == known.content
    shown = Style().clean(name).replace("\t", " ")
    assert " ".join(shown.split()) in page.text


@given(names)
@few
def test_no_format_lets_a_control_pass(name):
    report = one_of(name)
    texts = {form: render(report, form) for form in format_names()}
    texts |= {
        "str": str(report),
        "notebook": report._repr_html_(),
        "colour": render(report, "full", Style(color=True)),
    }
    for form, text in texts.items():
        if form == "colour":
            text = re.sub(r"\x1b\[[0-9;]*m(?!\[)", "", text)
        assert UNSAFE.findall(text.replace("\n", "")) == [], form
        text.encode()


def test_a_value_that_is_no_text_is_a_fault_of_the_template():
    environment = engine.environment()
    assert environment.from_string("{{ a }}").render(a="<\x1b") == "&lt;\\x1b"
    for value in (None, 1.5, True, ["a"]):
        with pytest.raises(TypeError, match="a page shows text"):
            environment.from_string("{{ a }}").render(a=value)
    with pytest.raises(Exception, match="has no attribute"):
        environment.from_string("{% for one in a.b %}{% endfor %}").render(a=1)


def contrast(one, other):
    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
def test_contrast(pair, dark):
    assert contrast(*(TOKENS[name][dark] for name in pair)) >= 4.5


def large():
    """As many layers, findings and figures as in a network of 50 layers in which much is wrong."""
    paths = [f"layer{1 + n // 40}.{n % 40 // 3}.bn{n % 3 + 1}" for n in range(160)]
    point = {
        "kind": "batch_norm",
        "role": "norm",
        "mean": 0.1,
        "variance": 1.0,
        "between": 1.0,
        "gradient_rms": 1e-3,
    }
    sizes = {
        "call": 0,
        "channels": 64,
        "positions": 196,
        "samples": 64,
        "per_sample": 40.0,
        "batch": 4,
        "passes": 8,
    }
    target = TargetSummary(
        name="resnet.py:net",
        norms={"BatchNorm2d": 160},
        profile=tuple(ProfilePoint(site=p, module=p, depth=n, **point) for n, p in enumerate(paths)),
        batch_sizes=tuple(BatchSizes(module=path, **sizes) for path in paths),
        inventory=tuple(NormRow(module=path, type="BatchNorm2d", output=(8, 64, 56, 56)) for path in paths),
    )
    found = [
        Finding(
            code="ND201", name="batchnorm-eps", severity=Severity.WARNING, confidence=Confidence.HIGH,
            message=f"number {n}", modules=tuple(paths), target=target.name,
            sites=tuple(Site(module=path, evidence={"eps": 0.1 + at}) for at, path in enumerate(paths)),
        )
        for n in range(60)
    ]  # fmt: skip
    return Report(findings=tuple(found), targets=(target,))


def test_findings_alike_have_each_its_own_surroundings(tmp_path, monkeypatch):
    lines = [
        "from torch import nn",
        "model = nn.Sequential(",
        *("    nn.Conv2d(3, 3, 3),\n    nn.BatchNorm2d(3),\n    nn.ReLU()," for _ in range(2)),
        ")",
    ]
    (tmp_path / "alike.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    report = normdoctor.check("alike.py", select="ND101")
    assert len({finding.fingerprint for finding in report.findings}) == 1
    made = cards.cards(report.findings, charts(report))
    assert [[picture.title for picture in card.pictures] for card in made] == [
        ["Around ND101 at 0"],
        ["Around ND101 at 3"],
    ]


def test_size():
    report = large()
    assert len(render(report, "html").encode()) < 2 * 2**20
    assert len(report._repr_html_().encode()) < 2**18
    assert len(render(Report(), "html").encode()) < 2**15


def test_a_long_line_is_cut(tmp_path):
    file = tmp_path / "long.py"
    file.write_text("x = '" + "y" * 10_000 + "'\n")
    finding = msgspec.structs.replace(one_of("a").findings[0], location=Location(str(file), 1, 5, 1, 10_000))
    text = render(Report(findings=(finding,)), "html")
    assert "y" * 200 not in text
    assert "y" * 100 in text


@pytest.mark.parametrize("which", REPORTS)
def test_notebooks(which):
    text = REPORTS[which]()._repr_html_()
    assert text.startswith('<div class="normdoctor">')
    page = Page(text)
    sound(page)
    assert page.content["script"] == []
    (style,) = page.content["style"]
    selectors = [
        one for block in re.findall(r"([^{}]+)\{", style) for one in re.split(r",(?![^(]*\))", block)
    ]
    assert all(re.match(r"(p)?\.(nd-|normdoctor)", one.strip()) for one in selectors), selectors
    assert "@" not in style
    assert not {tag for tag, *_ in page.kinds} & {"html", "head", "body", "link", "meta", "h1", "h2", "main"}


def test_the_methods_are_the_formats(monkeypatch):
    report = FORMATS.report()
    assert report.to_html() == render(report, "html")


@pytest.fixture(scope="module")
def converted():
    import torch
    from torch import nn

    import normdoctor

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
    )
    return normdoctor.convert(model, "batch->group", inputs=torch.zeros(2, 3, 8, 8))


def test_conversion(converted):
    page, fragment = Page(converted.to_html()), Page(converted._repr_html_())
    sound(page)
    sound(fragment)
    for found in (page, fragment):
        assert f"{len(converted.replaced)} layers replaced" in found.text
        assert "eval outputs" in found.text
        assert "1 BatchNorm2d(8, eps=1e-05" in found.text
        assert "GroupNorm(" in found.text
        assert "1.running_mean gone" in found.text
        assert "relative difference" in found.text


def test_conversion_of_hostile_names(converted):
    import dataclasses

    name = "<script>\x1b\u202e</style>"
    hostile = dataclasses.replace(
        converted,
        spec=name,
        notes=(name,),
        replaced=tuple(dataclasses.replace(one, path=name, old=name, new=name) for one in converted.replaced),
        layers=dict.fromkeys([name], next(iter(converted.layers.values()))),
        key_map={name: name + "2"},
    )
    for text in (hostile.to_html(), hostile._repr_html_()):
        page = Page(text)
        sound(page)
        assert Style().clean(name) in page.text
        assert UNSAFE.findall(text.replace("\n", "")) == []


def test_jinja_is_imported_for_pages_only():
    import subprocess

    script = (
        "import sys, json; from normdoctor.output import format_names, get_format, render\n"
        "from normdoctor.report import Report\n"
        "import normdoctor.report, normdoctor.cli\n"
        "[get_format(name) for name in format_names()]\n"
        "before = 'jinja2' in sys.modules; render(Report(), 'html')\n"
        "print(json.dumps([before, 'jinja2' in sys.modules, 'torch' in sys.modules]))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert json.loads(done.stdout) == [False, True, False]


if __name__ == "__main__":
    os.chdir(GOLDEN)
    rulepages.find_rule = cards.find_rule = lambda code: None
    (GOLDEN / "html.txt").write_text(golden(), encoding="utf-8")
