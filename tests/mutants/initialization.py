"""Faults of the values that parameters start with."""

from __future__ import annotations

import ast
import re

from .source import LAYER, MARK
from .table import operator

DRAWN = r"nn\.Parameter\(torch\.randn\(.*\).*\)"


def marks_of(src, node):
    """A finding about a parameter may stand where it is made, or at the module that holds it."""
    return [src.mark(node)]


def hidden_layers(src):
    """Layers that are attributes of a class with a constructor, but for the last one of the net."""
    calls = [one for one in src.built(LAYER) if src.attribute(one)]
    yield from (
        one for one in calls if src.attribute(one) not in ("head", "fc", "fc3", "out", "score", "value")
    )


def after(src, call, text):
    """A statement behind everything that __init__ does."""
    init = src.method(call)
    return src.add_statement(init.body[-1], text)


@operator("ND401")
def constant_weights(src):
    for call in hidden_layers(src):
        if init_is_last(src, call):
            name = src.attribute(call)
            edits = [after(src, call, f"{MARK}nn.init.constant_(self.{name}.weight, 0.05)"), src.mark(call)]
            yield edits, call, DEPTHWISE if name == "dwconv" else ""


@operator("ND401")
def zero_weights(src):
    for call in hidden_layers(src):
        if init_is_last(src, call):
            name = src.attribute(call)
            void = zero_is_meant(src, name)
            yield [after(src, call, f"{MARK}nn.init.zeros_(self.{name}.weight)"), src.mark(call)], call, void


DEPTHWISE = "a filter of one channel: no unit shares its input"
ZERO_IS_MEANT = {
    "encoder q k v": "a factor or a term of attention may start at zero",
    "encoder out": "the last layer of a residual branch may start at zero",
    "convnext down": "the last layer of a residual branch may start at zero",
    "convnext dwconv": DEPTHWISE,
    "preact conv2": "the last layer of a residual branch may start at zero",
    "preact stem": "it learns: its bias and its input are not zero",
    "unet up1 up2": "a branch of a concatenation may start at zero",
    "mobilenet reduce expand": "a gate may start at zero",
}


def zero_is_meant(src, name) -> str:
    found = (
        why for key, why in ZERO_IS_MEANT.items() if key.split()[0] == src.net and name in key.split()[1:]
    )
    return next(found, "")


def init_is_last(src, call) -> bool:
    """Does nothing overwrite what this __init__ sets?"""
    return src.net not in ("dcgan", "gpt", "resnet") or src.class_of(call).name in ("ResNet",)


@operator("ND401")
def ones_by_helper(src):
    """The initialization of all layers is a constant."""
    for call in src.calls(r"nn\.init", "kaiming_normal_|normal_"):
        target = src.of(call.args[0])
        if "weight, 1.0" in src.of(call) or "proj" in src.of(src.parent[src.parent[call]]):
            continue
        marks = [src.mark(one) for one in src.built(LAYER + "|Embedding")]
        yield [src.replace(call, f"{MARK}nn.init.constant_({target}, 0.01)"), *marks], call


def every_linear_of_a_plain_net(src, std):
    """All layers of a class without norms, drawn anew: one mutant a class."""
    if src.net != "policy":
        return
    classes = {src.class_of(call).name: call for call in src.built("Linear")}
    marks = [src.mark(call) for call in src.built("Linear")]
    for call in classes.values():
        text = (
            f"for one in self.modules(): isinstance(one, nn.Linear) and nn.init.normal_(one.weight, 0, {std})"
        )
        yield [after(src, call, f"{MARK}{text}"), *marks], call


@operator("ND403")
def standard_normal_weights(src):
    yield from every_linear_of_a_plain_net(src, 1.0)


@operator("ND403")
def weights_near_zero(src):
    yield from every_linear_of_a_plain_net(src, 0.001)


@operator("ND404")
def uniform_from_zero(src):
    """torch.rand for torch.randn, uniform_ without bounds."""
    for node in ast.walk(src.tree):
        if isinstance(node, ast.Call) and re.fullmatch(DRAWN, src.of(node)):
            yield (
                [src.replace(node, src.of(node).replace("torch.randn", "torch.rand")), src.mark(node)],
                node,
                (
                    ""
                    if src.class_of(node) is None or src.net != "encoder"
                    else "a table of positions is added, not multiplied"
                ),
            )
    for call in hidden_layers(src):
        if init_is_last(src, call):
            name = src.attribute(call)
            edits = [after(src, call, f"{MARK}nn.init.uniform_(self.{name}.weight)"), src.mark(call)]
            yield edits, call, DEPTHWISE if name == "dwconv" else ""


@operator("ND405")
def memory_of_empty(src):
    for node in ast.walk(src.tree):
        if isinstance(node, ast.Call) and re.fullmatch(DRAWN, src.of(node)):
            drawn = next(n for n in ast.walk(node) if isinstance(n, ast.Call) and src.name(n) == "randn")
            new = f"nn.Parameter(torch.empty{src.of(drawn).removeprefix('torch.randn')})"
            yield [src.replace(node, new), src.mark(node)], node
    for node in ast.walk(src.tree):
        if isinstance(node, ast.Call) and re.fullmatch(
            r"nn\.Parameter\(torch\.(ones|zeros)\(\w+\)\)", src.of(node)
        ):
            new = re.sub("ones|zeros", "empty", src.of(node))
            yield [src.replace(node, new), src.mark(node)], node


@operator("ND406")
def equal_units(src):
    for call in hidden_layers(src):
        if init_is_last(src, call):
            name = src.attribute(call)
            # The units of a transposed convolution lie along the second axis of its weight.
            one, two = ("[:, 1]", "[:, 0]") if "Transpose" in src.name(call) else ("[1]", "[0]")
            text = f"{MARK}self.{name}.weight.data{one} = self.{name}.weight.data{two}"
            yield [after(src, call, text), src.mark(call)], call, DEPTHWISE if name == "dwconv" else ""


@operator("ND408")
def bias_far_below(src):
    for call in hidden_layers(src):
        bias = src.given(call, "bias") is None
        if bias and init_is_last(src, call) and relu_follows(src, call):
            name = src.attribute(call)
            yield (
                [after(src, call, f"{MARK}nn.init.constant_(self.{name}.bias, -10.0)"), src.mark(call)],
                call,
            )


def relu_follows(src, call) -> bool:
    for use in src.uses(src.class_of(call), src.attribute(call)):
        if re.match(r"(F|torch)\.relu\(self\.\w+\(|self\.act\(self\.reduce", src.of(src.parent[use]) or ""):
            return True
    return False


@operator("ND407")
def norms_start_at_zero(src):
    for call in src.calls(r"nn\.init", "normal_"):
        if "1.0" in src.of(call):
            marks = [src.mark(one) for one in src.built(r"BatchNorm\dd")]
            yield [src.replace(call, f"{MARK}nn.init.zeros_({src.of(call.args[0])})"), *marks], call
