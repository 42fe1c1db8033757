"""Faults in the settings of norms, and in norms written by hand."""

from __future__ import annotations

import ast
import re

from .source import ACTIVATION, MARK
from .table import operator

BATCH = r"BatchNorm\dd"


def activated(src, call) -> bool:
    """Does an activation follow the norm that is built here?"""
    behind = src.behind(call)
    if behind is not None:
        return bool(re.fullmatch(ACTIVATION, src.name(behind)))
    for use in src.uses(src.class_of(call), src.attribute(call)):
        if re.fullmatch(r"(F|torch)\.\w+|self\.(relu|act)", src.of(getattr(src.parent[use], "func", use))):
            return True
    return False


@operator("ND201")
def channels_as_eps(src):
    for call in src.built(BATCH):
        yield [src.add_argument(call, src.of(call.args[0])), src.mark(call)], call


@operator("ND201")
def momentum_as_eps(src):
    for call in src.built(BATCH):
        yield [src.add_argument(call, "0.8"), src.mark(call)], call
    for call in src.calls("F", "batch_norm"):
        yield [src.add_argument(call, "eps=0.1"), src.mark(call)], call


@operator("ND202")
def momentum_of_keras(src):
    for call in src.built(BATCH):
        yield [src.set_argument(call, "momentum", "0.99"), src.mark(call)], call
    for call in src.calls("F", "batch_norm"):
        yield [src.add_argument(call, "momentum=0.9"), src.mark(call)], call


@operator("ND204")
def no_running_statistics(src):
    for call in src.built(BATCH):
        yield [src.set_argument(call, "track_running_stats", "False"), src.mark(call)], call
    for call in src.calls("F", "batch_norm"):
        edits = [src.replace(one, "None") for one in call.args[1:3]]
        edits.append(src.replace(src.given(call, "training").value, "True"))
        yield [*edits, src.mark(call)], call


@operator("ND204")
def statistics_of_the_batch_in_eval(src):
    for call in src.calls("F", "batch_norm"):
        yield [src.replace(src.given(call, "training").value, "True"), src.mark(call)], call


@operator("ND117")
def no_affine(src):
    for call in src.built(BATCH):
        void = "" if activated(src, call) else "no activation follows"
        yield [src.set_argument(call, "affine", "False"), src.mark(call)], call, void


@operator("ND114")
def groups_of_one(src):
    for call in src.built("GroupNorm"):
        vectors = src.net == "mlp"
        void = "" if vectors else "on maps it is instance normalization"
        yield [src.replace(call.args[0], src.of(call.args[1])), src.mark(call)], call, void


@operator("ND114")
def norm_of_one_value(src):
    for call in src.built("Linear"):
        if src.sequence(call) and src.of(call.args[1]) == "1":
            yield [src.add_element(call, f"{MARK}nn.LayerNorm(1)")], call


@operator("ND114")
def norm_behind_global_pool(src):
    for call in src.built("Conv2d"):
        if src.net == "mobilenet" and src.attribute(call) == "reduce":
            made = f"nn.Sequential({src.of(call)}, {MARK}nn.GroupNorm(width // 4, width // 4))"
            yield [src.replace(call, made)], call


@operator("ND116 ND114")
def batchnorm_over_tokens(src):
    sizes = {"encoder": "24", "gpt": "32"}
    for call in src.built("LayerNorm"):
        if src.net in sizes and src.class_of(call).name == "Block":
            yield [src.replace(call, f"{MARK}nn.BatchNorm1d({sizes[src.net]})")], call


@operator("ND116")
def layernorm_over_tokens_too(src):
    for call in src.built("LayerNorm"):
        if src.net == "encoder" and src.class_of(call).name == "Block":
            yield [src.replace(call.args[0], f"[24, {src.of(call.args[0])}]"), src.mark(call)], call


@operator("ND116")
def layernorm_across_width(src):
    """The permutation is forgotten, and the maps are as wide as they have channels."""
    for call in src.built("LayerNorm"):
        if src.net == "convnext" and src.class_of(call).name == "Block":
            tuples = (n for n in ast.walk(src.tree) if isinstance(n, ast.Tuple) and src.of(n) == "(24, 48)")
            edits = [src.replace(node, "(16, 8)") for node in tuples]
            for one in src.calls(r"[\s\S]*", "permute"):
                tail = src.text[src.start(one) : src.end(one)].rindex(".permute")
                edits.append((src.start(one) + tail, src.end(one), ""))
            gammas = (
                n for n in ast.walk(src.tree) if isinstance(n, ast.BinOp) and src.of(n) == "self.gamma * y"
            )
            edits += [(src.end(n.left), src.end(n.left), "[:, None, None]") for n in gammas]
            yield [*edits, src.mark(call)], call


# -- norms written by hand -------------------------------------------------------------------------


def by_hand(src, pattern):
    for node in ast.walk(src.tree):
        if isinstance(node, ast.expr) and re.fullmatch(pattern, src.of(node)):
            cls = src.class_of(node)
            if cls is not None and "Norm" in cls.name:
                yield node, cls


def core_marks(src, cls):
    """A finding about a norm written by hand may stand where its forward divides by the root."""
    forward = next(n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "forward")
    return [src.mark(statement) for statement in forward.body if "sqrt(" in src.of(statement)]


@operator("ND902")
def norm_over_the_batch(src):
    for cls in (n for n in ast.walk(src.tree) if isinstance(n, ast.ClassDef) and "Norm" in n.name):
        edits, place = [], None
        for call in ast.walk(cls):
            if isinstance(call, ast.Call) and src.name(call) == "mean":
                dim = src.given(call, "dim")
                edits.append(src.replace(dim.value if dim else call.args[0], f"{MARK}0"))
                place = place or call
        yield [*edits, *core_marks(src, cls)], place


@operator("ND905")
def eps_outside_the_root(src):
    for node, cls in by_hand(src, r"torch\.sqrt\(var \+ self\.eps\)"):
        yield [src.replace(node, "(torch.sqrt(var) + self.eps)"), *core_marks(src, cls)], node


@operator("ND905")
def eps_forgotten(src):
    for node, cls in by_hand(src, r"(var|y\.pow\(2\)\.mean\(-1, keepdim=True\)) \+ self\.eps"):
        yield [src.replace(node, src.of(node).removesuffix(" + self.eps")), *core_marks(src, cls)], node


@operator("ND906")
def divided_by_the_inverse(src):
    for node, cls in by_hand(src, r"y \* torch\.rsqrt\(.*\)"):
        yield [src.replace(node, src.of(node).replace(" * ", " / ", 1)), *core_marks(src, cls)], node
    for node, cls in by_hand(src, r"\(x - mean\) / torch\.sqrt\(.*\)"):
        yield [src.replace(node, src.of(node).replace(") / ", ") * ", 1)), *core_marks(src, cls)], node


@operator("ND904")
def scale_not_learned(src):
    for node, _ in by_hand(src, r"nn\.Parameter\(torch\.(ones|zeros)\(dim\)\)"):
        yield [src.replace(node, src.of(node.args[0])), src.mark(node)], node


@operator("ND907")
def squares_in_half(src):
    """The cast to float32 is forgotten, and the model runs in half precision."""
    model = next(n for n in src.tree.body if isinstance(n, ast.Assign) and src.of(n.targets[0]) == "model")
    for node, cls in by_hand(src, r"x\.float\(\)"):
        half = (src.end(model.value), src.end(model.value), ".half()")
        yield [src.replace(node, "x"), *core_marks(src, cls), half], node
