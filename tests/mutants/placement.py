"""Faults of order and of wiring: biases, norms, skips."""

from __future__ import annotations

import ast
import re

from .source import MARK
from .table import operator


def batchnorm_behind(src, call) -> ast.Call | None:
    """The BatchNorm that reads what this layer returns."""
    behind = src.behind(call)
    if behind is not None:
        return behind if "BatchNorm" in src.name(behind) else None
    for use in src.uses(src.class_of(call), src.attribute(call)):
        around = src.parent[use]
        if isinstance(around, ast.Call) and (name := re.fullmatch(r"self\.(\w+)", src.of(around.func))):
            made = src.constructor(src.class_of(call), name[1])
            if made is not None and "BatchNorm" in src.name(made):
                return made
    return None


@operator("ND101")
def bias_kept(src):
    for call in src.built(r"Linear|Conv\dd|ConvTranspose\dd"):
        if src.given(call, "bias") and batchnorm_behind(src, call):
            yield [src.drop_argument(call, "bias"), src.mark(call)], call


@operator("ND106")
def spectral_norm_in_front(src):
    for call in src.built(r"Linear|Conv\dd|ConvTranspose\dd"):
        if (norm := batchnorm_behind(src, call)) is not None:
            new = f"nn.utils.parametrizations.spectral_norm({src.of(call)})"
            yield [src.replace(call, new), src.mark(call), src.mark(norm)], call


def norm_uses(src):
    for made in src.built(r"\w*Norm\w*"):
        for use in src.uses(src.class_of(made), src.attribute(made)):
            yield made, use
    for made in (
        n
        for n in ast.walk(src.tree)
        if isinstance(n, ast.Call) and src.of(n.func) in ("RMSNorm", "LayerNorm2d")
    ):
        for use in src.uses(src.class_of(made), src.attribute(made)):
            yield made, use


@operator("ND109 ND501")
def norm_not_called(src):
    for made, use in norm_uses(src):
        yield [src.replace(use, src.of(use.args[0])), src.mark(made)], use


@operator("ND110 ND105 ND109")
def norm_called_twice(src):
    """bn1 stands where bn2 was meant."""
    for made, use in norm_uses(src):
        cls = src.class_of(made)
        other = re.sub("2", "1", src.attribute(made))
        first = src.constructor(cls, other)
        if other != src.attribute(made) and first is not None:
            edits = [src.replace(use.func, f"self.{other}"), src.mark(made), src.mark(first), src.mark(use)]
            same = src.of(first) == src.of(made)
            yield edits, use, "" if same else "the norms differ in size"


@operator("ND105")
def one_norm_for_all(src):
    """A norm is built once and put at two places of a Sequential."""
    norms = [one for one in src.built(r"BatchNorm\dd") if src.sequence(one)]
    for one in norms:
        for other in norms:
            inside = src.around(one, ast.Assign) is src.around(other, ast.Assign)
            if src.start(one) < src.start(other) and inside and src.objects(one) and src.objects(other):
                if src.objects(one)[0].num_features != src.objects(other)[0].num_features:
                    continue
                statement = src.around(one, ast.stmt)
                pad = "\n" + " " * statement.col_offset
                edits = [(src.start(statement), src.start(statement), f"{MARK}shared = {src.of(one)}{pad}")]
                yield [*edits, src.replace(one, "shared"), src.replace(other, "shared")], one


@operator("ND107")
def skip_from_normed(src):
    """`x = norm(x); x = x + f(x)`."""
    for made, use in norm_uses(src):
        statement = src.around(use, ast.stmt)
        value = getattr(statement, "value", None)
        if (
            isinstance(value, ast.BinOp)
            and isinstance(value.op, ast.Add)
            and src.of(value.left) == src.of(use.args[0])
        ):
            name = src.of(value.left)
            new = f"{name} = {src.of(use)}; "
            edits = [
                (src.start(statement), src.start(statement), MARK + new),
                src.replace(use, name),
                src.mark(made),
            ]
            yield [*edits, src.mark(value)], use


def sums(src):
    for node in ast.walk(src.tree):
        method = src.method(node) if isinstance(node, ast.BinOp) else None
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Add)
            and method
            and method.name == "forward"
        ):
            cls = src.class_of(node)
            if cls is not None and cls.name in (
                "BasicBlock",
                "Block",
                "InvertedResidual",
                "Residual",
                "Gated",
            ):
                yield node


@operator("ND108")
def sum_with_itself(src):
    for node in sums(src):
        if src.of(node.left) == "x" and not isinstance(node.right, ast.Name):
            statement = src.around(node, ast.stmt)
            word = "return" if isinstance(statement, ast.Return) else "x ="
            new = f"x = {src.of(node.right)}; {MARK}{word} x + x"
            yield [src.replace(statement, new)], node
        else:
            branch = node.right if src.of(node.left) == "x" else node.left
            yield [src.replace(node, f"{MARK}{src.of(branch)} + {src.of(branch)}")], node


@operator("ND112 ND109")
def no_final_norm(src):
    for made, use in norm_uses(src):
        if src.net in ("encoder", "gpt") and src.attribute(made) == "norm":
            head = src.constructor(src.class_of(made), "head")
            calls = src.uses(src.class_of(made), "head")
            marks = [src.mark(head), *(src.mark(one) for one in calls), src.mark(use), src.mark(made)]
            yield [src.replace(made, "nn.Identity()"), *marks], made


@operator("ND103")
def norm_of_norm(src):
    for made in src.built(r"LayerNorm|BatchNorm\dd|GroupNorm"):
        if src.sequence(made):
            yield [src.add_element(made, MARK + src.of(made)), src.mark(made)], made
        else:
            for use in src.uses(src.class_of(made), src.attribute(made)):
                new = f"nn.Sequential({src.of(made)}, {src.of(made)})"
                yield [src.replace(made, new), src.mark(made)], use


PREACTIVATED = "a block that begins with a norm or an activation: its branches end so on purpose"


@operator("ND118")
def relu_before_add(src):
    for node in sums(src):
        branch = node.right if src.of(node.left) == "x" else node.left
        home = "F" if "functional as F" in src.text else "torch"
        edits = [src.replace(branch, f"{home}.relu({src.of(branch)})"), src.mark(branch), src.mark(node)]
        yield edits, node, PREACTIVATED if src.net in ("encoder", "gpt", "preact") else ""
