"""Faults at the output of a net, and between it and its loss."""

from __future__ import annotations

import ast
import re

from .source import MARK
from .table import operator


def loss_of(src) -> str:
    """The kind of the loss that the net is trained with."""
    kinds = {
        "CrossEntropyLoss": "cross_entropy",
        "F.cross_entropy": "cross_entropy",
        "BCEWithLogitsLoss": "bce_with_logits",
        "NLLLoss": "nll",
        "MSELoss": "mse",
    }
    return next(kind for word, kind in kinds.items() if word in src.text)


def outputs(src):
    """(edit maker, place): each wraps what the net returns."""
    model = next(n for n in src.tree.body if isinstance(n, ast.Assign) and src.of(n.targets[0]) == "model")
    if isinstance(model.value, ast.Call) and src.of(model.value.func) == "nn.Sequential":
        last = model.value.args[-1]
        yield lambda form, _: [src.add_element(last, MARK + form)], last
        return
    cls = next(
        n for n in ast.walk(src.tree) if isinstance(n, ast.ClassDef) and n.name == src.of(model.value.func)
    )
    forward = next(n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "forward")
    value = next(n for n in forward.body if isinstance(n, ast.Return)).value
    if "functional as F" in src.text:
        yield lambda _, form: [src.replace(value, MARK + form.format(src.of(value)))], value
    else:
        yield (
            lambda _, form: [src.replace(value, MARK + form.format(src.of(value)).replace("F.", "torch."))],
            value,
        )
    name = re.match(r"self\.(\w+)\(", src.of(value))
    made = src.constructor(cls, name[1]) if name else None
    if made is not None and src.name(made) == "Sequential":
        yield lambda form, _: [src.add_element(made.args[-1], MARK + form)], made.args[-1]


@operator("ND310")
def softmax_before_cross_entropy(src):
    if loss_of(src) == "cross_entropy":
        for wrap, place in outputs(src):
            yield wrap("nn.Softmax(dim=-1)", "F.softmax({}, dim=-1)"), place
            yield wrap("nn.Softmax(dim=-1)", "torch.softmax({}, dim=-1)"), place


@operator("ND311")
def sigmoid_before_bce_with_logits(src):
    if loss_of(src) == "bce_with_logits":
        for wrap, place in outputs(src):
            yield wrap("nn.Sigmoid()", "torch.sigmoid({})"), place


@operator("ND312")
def softmax_into_nll(src):
    for call in src.calls("F", "log_softmax"):
        yield [src.replace(call, src.of(call).replace("log_softmax", "softmax")), src.mark(call)], call


@operator("ND312")
def raw_scores_into_nll(src):
    for call in src.calls("F", "log_softmax"):
        loss = next(src.calls("nn", "NLLLoss"))
        marks = [src.mark(call), src.mark(loss), src.mark(src.layer_called(call.args[0]))]
        yield [src.replace(call, src.of(call.args[0])), *marks], call
    for call in src.built("CrossEntropyLoss"):
        marks = [src.mark(place) for _, place in outputs(src)]
        marks += [src.mark(made) for _, place in outputs(src) if isinstance(place, ast.Call)
                  and (made := src.layer_called(place)) is not None]  # fmt: skip
        yield [src.replace(call.func, "nn.NLLLoss"), src.mark(call), *marks], call


@operator("ND313")
def relu_on_output(src):
    if loss_of(src) != "nll":
        for wrap, place in outputs(src):
            yield wrap("nn.ReLU()", "F.relu({})"), place
            yield wrap("nn.ReLU()", "torch.relu({})"), place


@operator("ND319")
def dropout_on_output(src):
    if loss_of(src) != "nll":
        for wrap, place in outputs(src):
            yield wrap("nn.Dropout(0.5)", "F.dropout({}, 0.5, training=self.training)"), place


@operator("ND104")
def batchnorm_on_output(src):
    if src.net in ("mlp", "resnet", "functional", "lstm"):
        width = {"mlp": 1, "resnet": 10, "functional": 10, "lstm": 4}[src.net]
        for wrap, place in outputs(src):
            if isinstance(place, ast.Call) and src.sequence(place):
                yield wrap(f"nn.BatchNorm1d({width})", ""), place
            elif (made := src.layer_called(place)) is not None and made is not place:
                yield (
                    [src.replace(made, f"nn.Sequential({src.of(made)}, {MARK}nn.BatchNorm1d({width}))")],
                    made,
                )


@operator("ND307")
def softmax_over_one(src):
    for call in src.built("Linear"):
        found = src.sequence(call)
        if found and src.of(call.args[1]) == "1" and call is found[0].args[-1]:
            yield [src.add_element(call, f"{MARK}nn.Softmax(dim=1)")], call
    for call in src.calls("torch", "softmax"):
        if "self.score" in src.of(call):
            yield [src.set_argument(call, "dim", "-1"), src.mark(call)], call


@operator("ND314 ND310")
def sigmoid_before_cross_entropy(src):
    if loss_of(src) == "cross_entropy":
        for wrap, place in outputs(src):
            yield wrap("nn.Sigmoid()", "torch.sigmoid({})"), place
