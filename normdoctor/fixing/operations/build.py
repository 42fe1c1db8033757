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
    text, imports = doc.name_for(edit.value)
    first = call.args[0].value if call.args and call.args[0].star == "" else None
    named = first is not None and not isinstance(first, cst.BaseNumber | cst.BaseString)
    ways = []
    for keep in (True, False):
        arguments = [
            doc.source(first)
            if one.endswith("?") and keep and named and first is not None
            else one.rstrip("?")
            for one in edit.arguments
        ]
        ways.append(Change((Splice(doc.file, *doc.span(call), f"{text}({', '.join(arguments)})"), *imports)))
    return ways if named else ways[:1]
