"""Faults of activations and dropout inside of a net."""

from __future__ import annotations

import ast
import re

from .source import ACTIVATION, FUNCTION, LAYER, MARK
from .table import operator

SKIPPED = ("gate",)
MIXING = "a norm of several features or a gate stands between"


def torch_or_f(src):
    return "F" if "functional as F" in src.text else "torch"


def inner(src, call):
    """The text of what an activation is applied to."""
    return src.of(call.args[0])


def applied(src):
    """Activations as functions and as modules in a forward: F.relu(x), torch.relu(x), self.act(x)."""
    yield from src.calls("F|torch", FUNCTION)
    for made in src.built(ACTIVATION):
        for use in src.uses(src.class_of(made), src.attribute(made)):
            if src.attribute(made) not in SKIPPED:
                yield use


def layer_near(src, call, step):
    """(layer, mixing, normed): the layer that runs before or behind an application, and what is between.

    The layer is None where something else comes first; `mixing` is a norm of many features, `normed` a
    BatchNorm.
    """
    mixing = normed = False
    calls = src.order(src.method(call))
    place = calls.index(call) + step
    while 0 <= place < len(calls):
        one = calls[place]
        if (layer := src.layer_called(one)) is not None:
            return layer, mixing, normed
        built = re.fullmatch(r"self\.(\w+)", src.of(one.func))
        made = src.constructor(src.class_of(call), built[1]) if built else one
        if made is None or not re.fullmatch(r".*Norm.*|Dropout.*|[a-z]\w+", src.name(made)):
            break
        if not built and not re.fullmatch(r"batch_norm|dropout|flatten|permute", src.name(one)):
            break
        mixing = mixing or bool(re.fullmatch("LayerNorm|GroupNorm", src.name(made)))
        normed = normed or bool(re.fullmatch(r"BatchNorm\dd|batch_norm", src.name(made)))
        place += step
    return None, mixing, normed


def meant(src, first, second, normed) -> str:
    """Why two layers in a row, with a BatchNorm between or not, are what people build on purpose."""
    if first is None or second is None:
        return "no two layers meet"
    if any(src.given(one, "groups") for one in (first, second)):
        return "grouped convolutions may stand in a row"
    if not normed and any(src.given(one, "stride") for one in (first, second)):
        return "strided convolutions without a norm between are a patch embedding or an upsampling"
    one, two = src.objects(first), src.objects(second)
    if one and two:
        shapes = [tuple(module.weight.shape) for module in (one[0], two[0])]
        transposed = ["Transpose" in type(module).__name__ for module in (one[0], two[0])]
        (out, into), (last, _) = (
            (shape[1], shape[0]) if flip else shape[:2]
            for shape, flip in zip(shapes, transposed, strict=True)
        )
        if out < min(into, last):
            return "a linear bottleneck"
        if out < into and set(shapes[0][2:]) == {1} != set(shapes[1][2:]):
            return "a bare reduction in front of a convolution"
    return ""


@operator("ND301")
def activation_forgotten(src):
    for call in applied(src):
        (first, mixed, normed), (second, mixes, norms) = (layer_near(src, call, step) for step in (-1, 1))
        if isinstance(src.parent[call], ast.Return) or second is None or first is None:
            continue
        edits = [src.replace(call, inner(src, call)), src.mark(second)]
        yield edits, call, MIXING if mixed or mixes else meant(src, first, second, normed or norms)
    for call in src.built(ACTIVATION):
        if (found := src.sequence(call)) is None:
            continue
        before = [one for one in found[0].args[: found[1]] if re.fullmatch(LAYER, src.name(one))]
        rest = found[0].args[found[1] + 1 :]
        behind = [one for one in rest if re.fullmatch(LAYER, src.name(one))]
        if not before or not behind:
            continue
        between = found[0].args[found[0].args.index(before[-1]) : found[0].args.index(behind[0])]
        names = [src.name(one) for one in between]
        void = meant(src, before[-1], behind[0], any("BatchNorm" in one for one in names))
        if any(re.fullmatch(r"GroupNorm|LayerNorm|SqueezeExcite", one) for one in names):
            void = MIXING
        if "InvertedResidual" in names:
            void = "a skip reads it too"
        yield [src.drop_element(call), src.mark(behind[0])], call, void


@operator("ND302")
def activation_twice(src):
    for call in applied(src):
        yield [src.replace(call, f"{MARK}torch.sigmoid({src.of(call)})")], call
    for call in src.built("Sigmoid|Tanh"):
        if src.sequence(call):
            yield [src.add_element(call, f"{MARK}{src.of(call)}")], call
        else:
            for use in src.uses(src.class_of(call), src.attribute(call)):
                yield [src.replace(use, f"torch.sigmoid({src.of(use)})"), src.mark(use)], use


@operator("ND302")
def relu_in_front_of_output(src):
    for call in src.built("Tanh|Sigmoid"):
        if src.sequence(call):
            yield [src.add_element(call, "nn.ReLU()", before=True, mark=True)], call


@operator("ND303")
def sigmoids_everywhere(src):
    """Every activation of a plain net is the sigmoid."""
    plain = {"mlp": ACTIVATION, "dcgan": "ReLU|LeakyReLU", "policy": "Tanh"}
    normed = "fewer than five, with norms between"
    if src.net in plain:
        calls = list(src.built(plain[src.net]))
        edits = [src.replace(call, f"{MARK}nn.Sigmoid()") for call in calls]
        yield edits, calls[0], "" if src.net == "policy" else normed
    if src.net in ("functional", "policy"):
        calls = list(src.calls("F", "relu"))
        edits = [src.replace(one, f"{MARK}torch.sigmoid({inner(src, one)})") for one in calls]
        yield edits, calls[0], "" if src.net == "policy" else normed


@operator("ND305")
def softmax_as_activation(src):
    for call in applied(src):
        behind = layer_near(src, call, 1)[0]
        if behind is None or layer_near(src, call, -1)[0] is None:
            continue
        table = "Linear" in src.name(behind) and src.given(behind, "bias") is not None
        void = "in front of a layer without bias it reads a memory" if table else ""
        dim = 1 if src.net not in ("gpt", "encoder", "convnext") else -1
        yield (
            [src.replace(call, f"{MARK}{torch_or_f(src)}.softmax({inner(src, call)}, dim={dim})")],
            call,
            void,
        )
    for call in src.built(ACTIVATION):
        found = src.sequence(call)
        if found is None or not any(re.fullmatch(LAYER, src.name(o)) for o in found[0].args[found[1] + 1 :]):
            continue
        if not any(re.fullmatch(LAYER, src.name(one)) for one in found[0].args[: found[1]]):
            continue
        blocks = ("SqueezeExcite", "InvertedResidual")
        gated = any(src.name(one) in blocks for one in found[0].args[found[1] : found[1] + 2])
        dim = -1 if src.net == "encoder" else 1
        void = "a gate or a skip reads it too" if gated else ""
        yield [src.replace(call, f"{MARK}nn.Softmax(dim={dim})")], call, void


@operator("ND306")
def softmax_without_dim(src):
    for call in [*src.calls("F", "softmax|log_softmax"), *src.built("Softmax|LogSoftmax")]:
        edit = src.drop_argument(call, "dim")
        if edit is not None:
            yield [edit, src.mark(call)], call


@operator("ND308")
def softmax_over_the_batch(src):
    for call in [*src.calls("F|torch", "softmax|log_softmax")]:
        yield [src.set_argument(call, "dim", "0"), src.mark(call)], call


@operator("ND119")
def scale_behind_softmax(src):
    for call in src.calls("F", "softmax"):
        text = inner(src, call)
        if text.endswith(" * self.scale"):
            new = f"{MARK}F.softmax({text.removesuffix(' * self.scale')}, dim=-1) * self.scale"
            yield [src.replace(call, new)], call


@operator("ND315")
def skip_overwritten(src):
    """An activation in place whose input is read again."""
    for call in src.built("ReLU|ELU"):
        found = src.sequence(call)
        if found and found[1] == 0:
            yield [src.set_argument(call, "inplace", "True"), src.mark(call)], call
    for call in src.calls("F", "relu|elu"):
        argument = call.args[0]
        function = src.method(call)
        if not isinstance(argument, ast.Name):
            continue
        reads = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == argument.id]
        last = max(reads, key=src.start)
        statement = src.around(call, ast.stmt)
        rebound = isinstance(statement, ast.Assign) and src.of(statement.targets[0]) == argument.id
        if not rebound and src.start(last) > src.end(call):
            yield [src.set_argument(call, "inplace", "True"), src.mark(call)], call


@operator("ND316")
def inplace_as_slope(src):
    for call in src.built("ReLU|LeakyReLU|ELU"):
        yield [src.replace(call, f"{MARK}nn.LeakyReLU(True)")], call
    for call in src.calls("F", "relu"):
        yield [src.replace(call, f"{MARK}F.leaky_relu({inner(src, call)}, True)")], call


@operator("ND316")
def negative_slope(src):
    for call in src.built("LeakyReLU"):
        yield [src.replace(call.args[0], "-0.2"), src.mark(call)], call


@operator("ND317 ND301")
def result_dropped(src):
    """`F.relu(x)` as a statement of its own."""
    for call in applied(src):
        statement = src.parent[call]
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        target = statement.targets[0].id
        if isinstance(call.args[0], ast.Name):
            if call.args[0].id == target:
                yield [src.replace(statement, MARK + src.of(call))], call
            continue
        function = src.of(call.func)
        dropped = f"{target} = {inner(src, call)}; {function}({target})"
        yield [src.replace(statement, MARK + dropped)], call


@operator("ND318")
def training_not_given(src):
    for call in src.calls("F", r"dropout\d?d?"):
        yield [src.drop_argument(call, "training"), src.mark(call)], call


@operator("ND318")
def dropout_built_in_forward(src):
    for made in src.built(r"Dropout\d?d?"):
        for use in src.uses(src.class_of(made), src.attribute(made)):
            yield [src.replace(use.func, src.of(made)), src.mark(use)], use


@operator("ND318")
def attention_dropout_fixed(src):
    for call in src.calls("F", "scaled_dot_product_attention"):
        yield [src.set_argument(call, "dropout_p", "self.dropout"), src.mark(call)], call


@operator("ND102")
def dropout_in_front_of_batchnorm(src):
    for call in src.built(r"BatchNorm\dd"):
        if src.sequence(call):
            edits = [
                src.add_element(call, f"{MARK}nn.Dropout(0.3)", before=True),
                (src.start(call), src.start(call), MARK),
            ]
            yield edits, call
        for use in src.uses(src.class_of(call), src.attribute(call)):
            new = f"{MARK}F.dropout({inner(src, use)}, 0.3, training=self.training)"
            yield [src.replace(use.args[0], new), src.mark(call)], use
    for call in src.calls("F", "batch_norm"):
        argument = call.args[0]
        yield (
            [src.replace(argument, f"{MARK}F.dropout({src.of(argument)}, 0.3, training=self.training)")],
            call,
        )


@operator("ND319 ND102")
def dropout_of_everything(src):
    for call in src.built(r"Dropout\d?d?"):
        yield [src.replace(call.args[0], "1.0"), src.mark(call)], call
