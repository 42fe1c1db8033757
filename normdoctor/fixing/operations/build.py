"""Another layer in the place of one that is built."""

from __future__ import annotations

import libcst as cst

from normdoctor.findings import Edit
from normdoctor.fixing.case import Case
from normdoctor.fixing.splices import Change, Refused, Splice


def build(case: Case, edit: Edit) -> list[Change]:
    """Build `edit.value` with `edit.arguments`.

    An argument with `?` behind it is kept as the old call's first one, if that is no number; where the
    result does not stand its proof, the number is written.
    """
    if edit.at is None:
        raise Refused("where the layer is built is not known")
    doc, call = case.call(edit)
    others = [
        one.path
        for one in case.facts.modules
        if one.origin == edit.at and one.path not in case.finding.modules
    ]
    if others:
        raise Refused(f"this line also builds `{others[0]}`, of which the finding does not hold")
    doc.demand_no_comment(call)
    text, imports = doc.name_for(edit.value)
    first = call.args[0].value if call.args and call.args[0].star == "" else None
    named = first is not None and not isinstance(first, cst.BaseNumber | cst.BaseString)
    ways = []
    for momentum in ("", *_momenta(case, edit)):
        for keep in (True, False) if named else (False,):
            arguments = [
                doc.source(first) if one.endswith("?") and keep and first is not None else one.rstrip("?")
                for one in edit.arguments
            ]
            listed = ", ".join([*arguments, *([momentum] if momentum else [])])
            ways.append(
                Change((Splice(doc.file, *doc.span(call), f"{text}({listed})"), *imports), _note(edit))
            )
    return ways


def _momenta(case: Case, edit: Edit) -> list[str]:
    """What the momentum of torch's BatchNorm may be, where the old layer has one of its own."""
    if "BatchNorm" not in edit.value:
        return []
    modules = [case.modules[one.path] for one in case.facts.modules if one.origin == edit.at]
    values = {
        value
        for module in modules
        for name, value in vars(module).items()
        if type(value) is float and 0 < value < 1 and "eps" not in name
    }
    found = [f"momentum={number:g}" for value in sorted(values) for number in (value, round(1 - value, 12))]
    return [one for one in dict.fromkeys(found) if one != "momentum=0.1"]


def _note(edit: Edit) -> str:
    pairs = [(old.rpartition(".")[2], new.rpartition(".")[2]) for old, new in edit.carries]
    renamed = [f"{old} -> {new}" for old, new in dict.fromkeys(pairs) if old != new]
    return f"state dict: {', '.join(renamed)}" if renamed else ""
