"""What a shell is offered while a command line is typed: rules, targets, and the models of a file.

Nothing is imported for it but click: rules and models are found by reading their files.
"""

from __future__ import annotations

import ast
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

#: The shells that `normdoctor completion` knows.
SHELLS = ("bash", "zsh", "fish")
_RULE = re.compile(r'^    code = "(?P<code>[A-Z]+\d{3})"\n    name = "(?P<name>[a-z0-9-]+)"', re.MULTILINE)
_SUMMARY = re.compile(r'^class \w+.*?:\n    r?"""(?P<summary>[^\n]*)', re.MULTILINE)
#: Where bash cuts words, so that only what stands behind the last of these is replaced.
_CUTS = re.compile(r"[:=]+")
#: Calls that give back the model that they are called on.
_SAME = ("to", "cuda", "cpu", "eval", "train", "half", "float", "double", "requires_grad_")


def rules() -> Iterator[tuple[str, str, str]]:
    """Code, name and summary of normdoctor's own rules, in the order of their codes."""
    found = {}
    for file in (Path(__file__).parents[1] / "rules").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for match in _RULE.finditer(text):
            pages = list(_SUMMARY.finditer(text, 0, match.start()))
            found[match["code"]] = (match["name"], pages[-1]["summary"].strip('" ') if pages else "")
    for code in sorted(found):
        yield code, *found[code]


def complete_rules(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes and names, also behind a comma: `ND101,ND2`."""
    head, comma, last = incomplete.rpartition(",")
    given = set(head.split(","))
    return [
        CompletionItem(f"{head}{comma}{text}", help=summary)
        for code, name, summary in (("ALL", "all", "every rule"), *rules())
        for text in ((code, name) if last else (code,))
        if text not in given and text.startswith((last, last.upper()) if text == code else last)
    ]


def complete_rule(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """One code or name."""
    found = complete_rules(ctx, param, incomplete.replace(",", " "))
    return [item for item in found if item.value != "ALL"]


def complete_keys(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys of the configuration file."""
    from normdoctor.configfile import File

    return [CompletionItem(key) for key in File.__struct_encode_fields__ if key.startswith(incomplete)]


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of targets in the configuration file, models of a file, or else files."""
    file, colon, name = incomplete.partition(":")
    if not file.endswith(".py") or not os.path.isfile(file):
        named = [CompletionItem(alias) for alias in _aliases() if alias.startswith(incomplete)]
        return named if named and incomplete else [CompletionItem(incomplete, type="file"), *named]
    if name.startswith(":"):
        colon, name = "::", name[1:]
    if "::" in name:
        model, _, rule = name.partition("::")
        return [
            CompletionItem(f"{file}{colon}{model}::{code}", help=summary)
            for code, _name, summary in rules()
            if code.startswith(rule.upper())
        ]
    found = [one for one in models_of(Path(file)) if one.startswith(name)]
    alone = [] if colon else [CompletionItem(file)]
    return [*alone, *(CompletionItem(f"{file}{colon or ':'}{one}") for one in found)]


def _aliases() -> list[str]:
    from normdoctor.configfile import load_settings
    from normdoctor.errors import NormDoctorError

    try:
        return list(load_settings().aliases)
    except (NormDoctorError, OSError):
        return []


def models_of(file: Path) -> list[str]:
    """The names in a file that look like models, or like functions that build one; nothing is imported."""
    try:
        with tokenize.open(file) as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    known: dict[str, None] = {}
    for _ in range(2):  # a function may stand above the class that it builds
        for node in tree.body:
            known |= dict.fromkeys(_made(node, known))
    return [name for name in known if not name.startswith("_")]


def _made(node: ast.stmt, known: dict[str, None]) -> list[str]:
    """The names that a statement gives to models, or to what makes models."""
    if isinstance(node, ast.ClassDef):
        return [node.name] if any(_is_base(base, known) for base in node.bases) else []
    if isinstance(node, ast.FunctionDef):
        hint = ast.unparse(node.returns).strip("\"'") if node.returns else ""
        inner = [one for one in ast.walk(node) if isinstance(one, ast.Assign)]
        local = known | dict.fromkeys(name for one in inner for name in _assigned(one, known))
        values = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
        builds = any(
            _is_model(value, known)
            or (isinstance(value, ast.Name) and value.id in local.keys() - known.keys())
            for value in values
        )
        return [node.name] if builds or hint in known or hint.endswith("nn.Module") else []
    return _assigned(node, known) if isinstance(node, ast.Assign) else []


def _assigned(node: ast.Assign, known: dict[str, None]) -> list[str]:
    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names if _is_model(node.value, known) else []


def _is_base(base: ast.expr, known: dict[str, None]) -> bool:
    text = ast.unparse(base)
    return text in known or text.startswith(("nn.", "torch.nn.")) or text.endswith(("Module", "Model"))


def _is_model(value: ast.expr, known: dict[str, None]) -> bool:
    if not isinstance(value, ast.Call):
        return False
    if isinstance(value.func, ast.Attribute) and value.func.attr in _SAME:
        return _is_model(value.func.value, known)
    text = ast.unparse(value.func)
    layer = text.startswith(("nn.", "torch.nn.")) and not text.endswith("Loss")
    return text in known or (layer and text.rpartition(".")[2][:1].isupper())


class _Bash(BashComplete):
    """Bash cuts `model.py:Net` and `--fail-on=error` into words; click takes them as they were typed."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Put the words together again."""
        words = split_arg_string(os.environ["COMP_WORDS"])
        words = words[: int(os.environ["COMP_CWORD"]) + 1]
        words += [""] * (int(os.environ["COMP_CWORD"]) + 1 - len(words))
        whole: list[str] = []
        for word in words:
            glued = whole and (_CUTS.fullmatch(word) or _CUTS.fullmatch(_tail(whole[-1])))
            if glued:
                whole[-1] += word
            else:
                whole.append(word)
        self._kept = max((cut.end() for cut in _CUTS.finditer(whole[-1])), default=0)
        self._option = whole[-1].startswith("--")
        return whole[1:-1], whole[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """Leave out what bash keeps."""
        value = item.value if self._option else item.value[self._kept :]
        return f"{item.type},{value}"


def _tail(word: str) -> str:
    """The separators that a word ends with."""
    found = re.search(r"[:=]+$", word)
    return found.group() if found else ""


class _Fish(FishComplete):
    """Fish's script takes what stands behind the first comma; values such as `ND1,ND2` hold more."""

    source_template = FishComplete.source_template.replace('split ","', 'split -m 1 ","')


def completion_class(shell: str) -> type[ShellComplete]:
    """What completes in a shell."""
    return {"bash": _Bash, "zsh": ZshComplete, "fish": _Fish}[shell]


def register() -> None:
    """Let click use these."""
    for shell in SHELLS:
        add_completion_class(completion_class(shell))


def script(group: click.Command, shell: str) -> str:
    """The script that a shell has to run once."""
    kwargs: dict[str, Any] = {}
    return completion_class(shell)(group, kwargs, "normdoctor", "_NORMDOCTOR_COMPLETE").source()
