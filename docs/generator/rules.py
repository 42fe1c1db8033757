"""One page a rule, from its docstring and its attributes, and the index of all."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import normdoctor
from generator.examples import shown
from generator.markdown import NOTICE, code, fence, table
from normdoctor.output.catalogue import options
from normdoctor.rules import all_rules
from normdoctor.rules.base import Rule, page_of, summary_of

ROOT = Path(normdoctor.__file__).parent.parent
GROUPS = {
    "ND0": "The run itself",
    "ND1": "Where norms stand, and what they normalize over",
    "ND2": "Settings of norms",
    "ND3": "Activations, outputs and the loss",
    "ND4": "Initialization",
    "ND5": "State: running statistics, buffers, frozen parts, the optimizer, copies",
    "ND6": "Measured on data: activations",
    "ND7": "Measured on data or in training: norms",
    "ND8": "Measured in training: gradients and updates",
    "ND9": "Norms that are written by hand",
}
REQUIRED = {
    "graph": "a forward that could be recorded",
    "weights": "values of the weights",
    "loss": "a loss (`--loss`)",
    "optimizer": "an optimizer (`--optimizer`)",
    "reference": "the model of which it is a copy (`--reference`)",
}
#: Measurements that only `normdoctor.watch` takes, and the one that only several ranks give.
WATCHED = frozenset({"modes", "gradients", "updates"})
RANKS = "ranks"
ROLES = {"bad": "Wrong:", "good": "Right:", "fixed": "What the fix makes of it:"}
FENCE = re.compile(r"^```(?:python )?(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def own_rules() -> list[type[Rule]]:
    """The rules of normdoctor itself, without those of plugins."""
    return [rule for rule in all_rules() if rule.__module__.startswith("normdoctor.")]


def pages() -> dict[str, str]:
    """The page of each rule and the index, by file name."""
    return {"index.md": _index()} | {f"{rule.name}.md": page(rule) for rule in own_rules()}


def page(rule: type[Rule]) -> str:
    """The page of one rule."""
    summary, _, rest = page_of(rule).partition("\n")
    body, outputs = _with_outputs(rule, rest.strip())
    parts = [NOTICE, f"# {rule.code} {rule.name}", summary, _header(rule, outputs), _linked(rule, body)]
    if table_of := _options(rule):
        parts += [*([] if "\n## Options\n" in body else ["## Options"]), table_of]
    file = Path(inspect.getfile(rule)).relative_to(ROOT).as_posix()
    parts.append(f"The rule's source: [{file}](../../{file})")
    return "\n\n".join(parts) + "\n"


def _index() -> str:
    parts = [NOTICE, "# Rules", _counted()]
    for prefix, title in GROUPS.items():
        rows = [
            (
                f"[{rule.code}]({rule.name}.md)",
                f"[{rule.name}]({rule.name}.md)",
                summary_of(rule).rstrip("."),
                str(rule.severity) + (", in preview" if rule.preview else ""),
                "yes" if rule.fixable else "",
            )
            for rule in own_rules()
            if rule.code.startswith(prefix)
        ]
        parts += [f"## {title}", table(("code", "name", "finds", "severity", "fix"), rows)]
    listed = "\n".join(rule.name for rule in own_rules())
    parts.append(fence("{toctree}", f":hidden:\n\n{listed}"))
    return "\n\n".join(parts) + "\n"


def _counted() -> str:
    rules = own_rules()
    measured = sum(bool(rule.needs) for rule in rules)
    return (
        f"There are {len(rules)} rules. {len(rules) - measured} look at the model as it stands, {measured} "
        f"measure: they need data or a training. {sum(rule.fixable for rule in rules)} offer fixes, and "
        f"{sum(rule.preview for rule in rules)} are in preview: they run with `--preview`, or when selected "
        "by their code. `normdoctor rules` prints this list, `normdoctor explain ND101` a page."
    )


def _header(rule: type[Rule], outputs: list[str]) -> str:
    needs = ", ".join(REQUIRED[need] for need in sorted(rule.requires))
    parts = [
        f"**{str(rule.severity).capitalize()}**, confidence {rule.confidence}",
        _kind(rule) + (f"; needs {needs}" if needs else ""),
        f"Fix: {_fix(rule, outputs)}",
        f"Since {rule.since}" + (", in preview" if rule.preview else ""),
    ]
    return ". ".join(parts) + "."


def _kind(rule: type[Rule]) -> str:
    if rule.about_run:
        return "About the run"
    if RANKS in rule.needs:
        return "Measured on several ranks (`all_ranks=True`)"
    watched = bool(rule.needs & WATCHED)
    assert watched == ("def train(watch)" in page_of(rule)), f"{rule.code}: how is it measured?"
    if watched:
        return "Measured in training (`normdoctor.watch`)"
    return "Measured on data (`--data`)" if rule.needs else "Static"


def _fix(rule: type[Rule], outputs: list[str]) -> str:
    if not rule.fixable:
        return "by hand"
    found = {word for text in outputs for word in re.findall(r", fix: .* \((safe|unsafe)\b", text)}
    assert found, f"{rule.code}: none of its examples shows the fix"
    flags = {"safe": "safe (`--fix`)", "unsafe": "unsafe (`--fix --unsafe-fixes`)"}
    return " or ".join(flags[word] for word in sorted(found))


def _with_outputs(rule: type[Rule], body: str) -> tuple[str, list[str]]:
    """Say before each example what it is, and put behind the bad ones what normdoctor prints."""
    outputs = []

    def labelled(found: re.Match[str]) -> str:
        role, source = found[1], found[2]
        if role not in ROLES:
            return found[0]
        text = f"**{ROLES[role]}**\n\n{found[0]}"
        if role == "bad":
            outputs.append(shown(rule, source))
            text += f"\n\n{outputs[-1]}"
        return text

    return FENCE.sub(labelled, body), outputs


def _linked(rule: type[Rule], body: str) -> str:
    """Make links of the codes of other rules and of addresses, outside of code."""
    names = {one.code: one.name for one in own_rules() if one is not rule}

    def link(found: re.Match[str]) -> str:
        word = found[0]
        if word.startswith("http"):
            return f"<{word}>"
        return f"[{word}]({names[word]}.md)" if word in names else word

    pieces = re.split(r"(^```.*?^```$|`[^`\n]+`|^#[^\n]*$)", body, flags=re.MULTILINE | re.DOTALL)
    for number in range(0, len(pieces), 2):
        pieces[number] = re.sub(r"\bND\d{3}\b|https?://[^\s,;)]+(?<![.])", link, pieces[number])
    return "".join(pieces)


def _options(rule: type[Rule]) -> str:
    known = options(rule)
    if not known:
        return ""
    said = _described(rule)
    rows = [(code(name), kind, code(default), said.get(name, "")) for name, kind, default in known]
    about = (inspect.getdoc(rule.Options) or "").rstrip(".")
    return f"{about}. They are set in `[tool.normdoctor.options.{rule.code}]`.\n\n" + table(
        ("option", "type", "default", ""), rows
    )


def _described(rule: type[Rule]) -> dict[str, str]:
    """The strings below the fields of a rule's options."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(rule.Options))).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for field, text in zip(made.body, made.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id.replace("_", "-")] = inspect.cleandoc(str(text.value.value))
    return found
