"""Faults of registration and of state."""

from __future__ import annotations

import ast

from .source import MARK
from .table import operator


@operator("ND502")
def plain_list(src):
    for call in src.built("ModuleList"):
        marks = [src.mark(n) for n in ast.walk(call) if isinstance(n, ast.Call) and src.of(n.func) == "Block"]
        inside = call.args[0]
        for left, right in (("list(", ")"), ("[", "]")):
            if left == "[" and isinstance(inside, ast.ListComp):
                left = right = ""
            start, end = src.start(inside), src.end(inside)
            if isinstance(inside, ast.GeneratorExp):  # its span holds the parentheses of the call
                start, end = start + 1, end - 1
            edits = [(src.start(call), start, left), (end, src.end(call), right)]
            yield [*edits, *marks, src.mark(call)], call


@operator("ND503")
def buffer_not_registered(src):
    for call in src.calls("self", "register_buffer"):
        name = ast.literal_eval(call.args[0])
        statement = src.parent[call]
        reads = (n for n in ast.walk(src.class_of(call)) if isinstance(n, ast.Attribute) and n.attr == name)
        marks = [src.mark(node) for node in reads]
        new = f"self.{name} = {src.of(call.args[1])}"
        yield [src.replace(statement, new), src.mark(statement), *marks], call


@operator("ND506")
def frozen_but_live(src):
    for call in src.built(r"BatchNorm\dd"):
        name = src.attribute(call)
        if name and src.method(call) is not None:
            text = f"{MARK}self.{name}.requires_grad_(False)"
            yield [src.add_statement(src.method(call).body[-1], text), src.mark(call)], call


@operator("ND505")
def variance_of_zero(src):
    for call in src.built(r"BatchNorm\dd"):
        name = src.attribute(call)
        if name and src.method(call) is not None:
            text = f"{MARK}self.{name}.running_var.zero_()"
            yield [src.add_statement(src.method(call).body[-1], text), src.mark(call)], call


@operator("ND512")
def channel_switched_off(src):
    for call in src.built(r"BatchNorm\dd"):
        name = src.attribute(call)
        if src.net == "resnet" and name in ("bn", "bn1"):
            text = f"{MARK}nn.init.zeros_(self.{name}.weight)"
            yield [src.add_statement(src.method(call).body[-1], text), src.mark(call)], call
