"""Whole statements: finding them and taking them out."""

from __future__ import annotations

import libcst as cst

from normdoctor.fixing.document import Document
from normdoctor.fixing.splices import Splice


def alone(doc: Document, statement: cst.SimpleStatementLine) -> bool:
    """Can the statement go: is it the only one on its line, and not the only one of its block?"""
    block = doc.parent(statement)
    body = getattr(block, "body", ())
    return len(statement.body) == 1 and len(body) > 1


def without(doc: Document, statement: cst.SimpleStatementLine) -> Splice:
    """Take the statement out with its line; comment lines above it stay."""
    first, last = doc.span(statement.body[0]), doc.span(statement.body[-1])
    return Splice(doc.file, doc.start_of_line(first[0]), doc.end_of_line(last[1]), "")


def assignments(
    doc: Document, cls: cst.ClassDef, attribute: str
) -> list[tuple[cst.CSTNode, cst.BaseExpression]]:
    """(statement, value) of every `self.attribute = value` in the methods of a class."""
    found: list[tuple[cst.CSTNode, cst.BaseExpression]] = []
    for node in doc.all(cst.Assign, cst.AnnAssign, inside=cls):
        targets = [node.target] if isinstance(node, cst.AnnAssign) else [one.target for one in node.targets]
        if node.value is None:
            continue
        for target in targets:
            own = isinstance(target, cst.Attribute) and target.attr.value == attribute
            if own and isinstance(target, cst.Attribute) and isinstance(target.value, cst.Name):
                found.append((node, node.value))
    return found
