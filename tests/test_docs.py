"""The pages of docs/ and the README name what exists. Their blocks of code are run in tests/docs."""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.output import format_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
#: Options of other programs.
FOREIGN = {
    "--noqa",
    "--nproc-per-node",
    "--hook-type",
    "--lf",
    "--forked",
    "--junitxml",
    "--strict-markers",
    "--deselect",
    "--dist",
}


def reference(name):
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def section(name, title):
    """The text below a heading, up to the next one."""
    return re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", reference(name), re.MULTILINE | re.DOTALL).group(1)


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


@pytest.mark.parametrize("name", ["check", "watch", "convert", "layers.GroupNorm"])
def test_api_has_a_signature_and_an_example(name):
    text = section("api.md", re.escape(name))
    assert "```python signature" in text
    assert "```python run" in text


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_command_lines_parse(file):
    """Every `normdoctor COMMAND ...` in the text names a command, and options that this command has."""
    known = commands()
    text = FENCE.sub("", file.read_text(encoding="utf-8"))
    for line in re.findall(r"`normdoctor ([^`\n]+)`", text):
        name, *words = line.partition("#")[0].split()
        if name.startswith("-"):
            assert name in options_of(main), line
        elif name != "COMMAND":
            assert name in known, line
            assert {word for word in words if OPTION.fullmatch(word)} <= options_of(known[name]), line


def test_options_exist():
    everywhere = options_of(main, *commands().values()) | FOREIGN
    for file in PAGES[1:]:
        text = FENCE.sub("", file.read_text(encoding="utf-8"))
        found = {flag for flag in OPTION.findall(text) if not flag.startswith("--normdoctor")}
        assert found <= everywhere, file


def test_environment_variables():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "normdoctor").rglob("*.py")]
    pattern = re.compile(r"""(?:environ\.get\(|environ\[|getenv\(|envvar=)["']([A-Z_]+)["']""")
    read = {name for source in sources for name in pattern.findall(source)}
    read = {name for name in read if not name.startswith("COMP_")}  # between a shell and its completion
    listed = section("configuration.md", "Environment variables")
    assert {w for w in first_column(listed) if w.isupper()} == read


def test_formats():
    rows = first_column(section("output.md", "Formats of `normdoctor check`"))
    assert sorted(word for word in rows if word in format_names()) == sorted(format_names())


def test_json_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = (code for kind, code in FENCE.findall(reference("output.md")) if kind == "json")
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


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
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


def test_every_page_can_be_reached():
    """From the front page, over links."""
    seen, waiting = set(), [DOCS / "index.md"]
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        links = re.findall(r"\]\(([^)\s#]+\.md)[)#]", file.read_text(encoding="utf-8"))
        waiting += [(file.parent / link).resolve() for link in links if "://" not in link]
    assert {file for file in PAGES[1:] if file not in seen} == set()
