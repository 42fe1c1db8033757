"""Which rules run: codes, prefixes, names and `ALL`, and for every rule that does not run, why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from normdoctor.errors import UsageError, near
from normdoctor.findings import node_id
from normdoctor.rules import all_rules, find_rule
from normdoctor.rules.base import Rule

#: The weight of a selector that names one rule; a prefix weighs its length, `ALL` nothing.
EXACT = 100


@dataclass(frozen=True, slots=True)
class Selector:
    """What one selector says: these codes, on every target or (`node`) on one."""

    text: str
    codes: frozenset[str]
    weight: int
    node: str = ""

    def covers(self, rule: type[Rule], target: str | None) -> bool:
        """Does it name this rule on this target? Without a target only its codes count."""
        if rule.code not in self.codes:
            return False
        if not self.node or target is None:
            return True
        return f"{node_id(_clean(target))}::".startswith(f"{self.node}::")


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules that run, ordered by code, and the reason for each that does not."""

    rules: tuple[type[Rule], ...]
    off: Mapping[str, str]


def parse_selector(text: str) -> Selector:
    """Read `ND101`, `bias-before-norm`, `ND1`, `ALL` or a node id; anything else is a UsageError."""
    stripped = text.strip()
    node, _, key = stripped.rpartition("::")
    rules = all_rules()
    if key.upper() == "ALL":
        return Selector(stripped, frozenset(r.code for r in rules), 0, _clean(node))
    if rule := find_rule(key):
        return Selector(stripped, frozenset({rule.code}), EXACT, _clean(node))
    prefix = key.upper()
    letters = re.match(r"[A-Z]*", prefix)
    family = letters.group() if letters else ""
    codes = frozenset(
        r.code for r in rules if r.code.startswith(prefix) and family == r.code.rstrip("0123456789")
    )
    if not prefix or not codes:
        raise UsageError(f"unknown rule `{key}`", hint=unknown_rule_hint(key))
    return Selector(stripped, codes, len(prefix), _clean(node))


def weight_of(code: str, texts: Iterable[str]) -> int | None:
    """How narrowly the narrowest of these selectors names a rule; None where none does."""
    weights = [one.weight for one in map(parse_selector, texts) if code in one.codes]
    return max(weights, default=None)


def unknown_rule_hint(key: str) -> str:
    """Name the rules that are spelled like `key`, or say where all, or those of that family, are listed."""
    family = key.upper().rstrip("X")
    count = sum(rule.code.startswith(family) for rule in all_rules())
    if family.startswith("ND") and family != "ND" and count > 1:
        return f"{count} rules begin so: `normdoctor rules --select {family}` lists them."
    if len(family) > len("ND000") and family.startswith("ND"):
        return f"Codes have three digits, as in {all_rules()[0].code}; `normdoctor rules` lists all."
    names = [name for rule in all_rules() for name in (rule.code, rule.name)]
    listed = "`normdoctor rules` lists every rule; prefixes such as ND1, and ALL, are accepted too."
    return near(key, names) or listed


def split_selectors(values: Iterable[str]) -> tuple[str, ...]:
    """Split `ND101,ND2` given in one or in several values."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def select_rules(
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    extend_select: Iterable[str] = (),
    levels: Mapping[str, str] | None = None,
    preview: bool = False,
    target: str | None = None,
) -> Selection:
    """Choose the rules for a target; the narrower selector wins, and `ignore` wins a tie.

    Args:
        select: What runs instead of everything.
        ignore: What does not run.
        extend_select: What runs besides `select`.
        levels: Rule to level; a rule with a level is selected, `"ignore"` turns it off.
        preview: Run rules that are in preview as well.
        target: The target's name, for selectors that are node ids.
    """
    levels = levels or {}
    wanted = [parse_selector(text) for text in select] or [parse_selector("ALL")]
    wanted += [parse_selector(text) for text in extend_select]
    wanted += [parse_selector(key) for key, level in levels.items() if level != "ignore"]
    unwanted = [parse_selector(text) for text in ignore]
    unwanted += [parse_selector(key) for key, level in levels.items() if level == "ignore"]
    off: dict[str, str] = {}
    for rule in all_rules():
        for_it = _heaviest(wanted, rule, target)
        against = _heaviest(unwanted, rule, target)
        weight = 0 if for_it is None else for_it.weight
        if for_it is None and not rule.always:
            off[rule.code] = "not selected"
        elif against is not None and against.weight >= weight:
            off[rule.code] = f"ignored by `{against.text}`"
        elif rule.preview and not preview and weight < EXACT:
            off[rule.code] = "preview: select it by its code, or give --preview"
    return Selection(tuple(r for r in all_rules() if r.code not in off), off)


def _heaviest(selectors: list[Selector], rule: type[Rule], target: str | None) -> Selector | None:
    hits = [selector for selector in selectors if selector.covers(rule, target)]
    return max(hits, key=lambda selector: selector.weight, default=None)


def _clean(node: str) -> str:
    file, separator, rest = node.partition("::" if "::" in node else ":")
    return (os.path.normpath(file).replace(os.sep, "/") if file else "") + separator + rest


def split_node_id(text: str) -> tuple[str, str]:
    """Split `model.py::Net::ND101` into the target `model.py:Net` and the rule, which may be `""`."""
    if "::" not in text:
        return text, ""
    file, *rest = text.split("::")
    code = rest.pop() if find_rule(rest[-1]) else ""
    if len(rest) > 1 or not file:
        raise UsageError(
            f"`{text}` is not a node id", hint="Node ids read model.py::Net::ND101 or model.py::Net."
        )
    return ":".join([file, *rest]), code
