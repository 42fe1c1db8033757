"""The pages of docs/ and the README: what they show runs, and what they name exists."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import normdoctor
from normdoctor.cli import main
from normdoctor.configfile import File
from normdoctor.output import format_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def fences(kind):
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, (found, code) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if found == kind
    ]


def page(name):
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def section(name, title):
    """The text below a heading, up to the next one."""
    return re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", page(name), re.MULTILINE | re.DOTALL).group(1)


def first_column(text):
    """The code words in the first cell of each row of a table."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def commands():
    context = click.Context(main)
    return {name: main.get_command(context, name) for name in main.list_commands(context)}


def options_of(*found):
    params = [param for one in found for param in one.params]
    return {"--help"} | {flag for param in params for flag in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("code", fences("python run"))
def test_examples_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no configuration file of this checkout
    exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("code", fences("python pytest"))
def test_tests_pass(code, tmp_path):
    file = tmp_path / "test_example.py"
    file.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("code", fences("python signature"))
def test_signatures(code):
    space = {}
    exec(f"from __future__ import annotations\n{code}", space)
    (name,) = (key for key in space if key not in ("__builtins__", "annotations"))
    real = getattr(normdoctor.layers if name == "GroupNorm" else normdoctor, name)

    def shape(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert shape(space[name]) == shape(real)


@pytest.mark.parametrize("name", ["check", "watch", "convert", "layers.GroupNorm"])
def test_api_has_a_signature_and_an_example(name):
    text = section("api.md", re.escape(name))
    assert "```python signature" in text
    assert "```python run" in text


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_command_lines_parse(file):
    """Every `normdoctor COMMAND ...` names a command, and options that this command has."""
    known = commands()
    text = file.read_text(encoding="utf-8")
    lines = re.findall(r"(?:^ {4}(?:\$ )?|`)normdoctor ([^`\n]+)", text, re.MULTILINE)
    for line in lines:
        name, *words = line.split("#")[0].replace("&&", " ").split()
        if name.startswith("-"):
            assert name in options_of(main), line
            continue
        assert name in known, line
        assert {word for word in words if OPTION.fullmatch(word)} <= options_of(known[name]), line


def test_options_exist():
    everywhere = options_of(main, *commands().values())
    text = "\n".join(file.read_text(encoding="utf-8") for file in PAGES if file != ROOT / "README.md")
    assert set(OPTION.findall(text)) <= everywhere


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_documented(name):
    flags = {flag for flag in options_of(commands()[name]) if flag.startswith("--")}
    assert flags <= set(OPTION.findall(page("configuration.md")))


def test_keys_of_the_configuration():
    assert sorted(first_column(section("configuration.md", "Keys"))) == sorted(File.__struct_encode_fields__)


def test_environment_variables():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "normdoctor").rglob("*.py")]
    pattern = re.compile(r"""(?:environ\.get\(|environ\[|getenv\(|envvar=)["']([A-Z_]+)["']""")
    read = {name for source in sources for name in pattern.findall(source)}
    listed = section("configuration.md", "Environment variables")
    assert {w for w in first_column(listed) if w.isupper()} == read


def test_formats():
    rows = first_column(section("output.md", "Formats of `normdoctor check`"))
    assert sorted(word for word in rows if word in format_names()) == sorted(format_names())


def test_json_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = (code for kind, code in FENCE.findall(page("output.md")) if kind == "json")
    shown = json.loads(code)
    command = "check examples/faulty_net.py --isolated --select ND310 --output-format json"
    printed = json.loads(CliRunner().invoke(main, command.split()).stdout)
    for data in (shown, printed):
        assert sorted(data.pop("environment")) == ["normdoctor", "platform", "python", "torch"]
    assert shown == printed
    keys = first_column(section("output.md", "JSON"))
    assert [key for key in keys if key in {*shown, "environment"}] == [
        *("schema_version", "tool", "environment", "targets", "findings", "skipped", "problems", "summary")
    ]
    assert {*shown, "environment"} <= set(keys)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_resolve(file):
    text = FENCE.sub("", file.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        other = (file.parent / target).resolve() if target else file
        assert other.is_file(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, link


def test_every_page_of_the_reference_is_linked():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(reference/([\w-]+\.md)\)", index))
    assert linked == {file.name for file in PAGES if file.parent.name == "reference"}
