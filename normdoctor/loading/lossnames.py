"""What source code calls losses and squashing functions, in torch.nn.functional's words. No torch."""

from __future__ import annotations

import ast
import re
from typing import Any

#: Classes of torch.nn that are losses, and the function that each of them calls.
LOSS_CLASSES = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "NLLLoss2d": "nll_loss",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "MSELoss": "mse_loss",
    "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss",
    "HuberLoss": "huber_loss",
    "KLDivLoss": "kl_div",
    "PoissonNLLLoss": "poisson_nll_loss",
    "GaussianNLLLoss": "gaussian_nll_loss",
    "MultiMarginLoss": "multi_margin_loss",
    "MultiLabelMarginLoss": "multilabel_margin_loss",
    "MultiLabelSoftMarginLoss": "multilabel_soft_margin_loss",
    "SoftMarginLoss": "soft_margin_loss",
    "HingeEmbeddingLoss": "hinge_embedding_loss",
    "CTCLoss": "ctc_loss",
}
LOSS_FUNCTIONS = frozenset(LOSS_CLASSES.values())

#: Functions and classes that change the values of an output on its way to the loss.
CHANGES = {
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "logsigmoid": "logsigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "log": "log",
    "exp": "exp",
    "clamp": "clamp",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "logsigmoid",
    "Tanh": "tanh",
    "ReLU": "relu",
}

#: Methods and functions that keep the values.
KEEPS = frozenset(
    "view reshape flatten squeeze unsqueeze permute transpose contiguous float double half to cpu cuda "
    "clone view_as reshape_as type movedim".split()
)

_NAMESPACES = ("torch.nn.functional.", "torch.nn.modules.loss.", "torch.nn.", "torch.special.", "torch.")


def aliases(tree: ast.Module) -> dict[str, str]:
    """What names mean by the imports of the file: `F` is `torch.nn.functional`."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.asname:
                    known[name.asname] = name.name
                else:
                    head = name.name.partition(".")[0]
                    known[head] = head
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                known[name.asname or name.name] = f"{node.module}.{name.name}"
    return known


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` as text; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else None
    return None


def torch_name(node: ast.expr, known: dict[str, str]) -> str | None:
    """The last part of a name of torch's (`F.cross_entropy` gives `cross_entropy`), None for others."""
    text = dotted(node)
    if text is None:
        return None
    head, dot, rest = text.partition(".")
    full = known.get(head, head) + dot + rest
    for space in _NAMESPACES:
        if full.startswith(space) and "." not in full[len(space) :]:
            return full[len(space) :]
    return None


_EVALUATION = re.compile(r"(^|_)(val|valid|validate|validation|evaluate|evaluation|eval|test|testing)(_|$)")
_NO_GRADIENTS = ("no_grad", "inference_mode")


def evaluates(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Does a function evaluate, by its name or by a decorator that turns gradients off?"""
    if _EVALUATION.search(function.name.lower()):
        return True
    return any(without_gradients(one) for one in function.decorator_list)


def without_gradients(node: ast.expr) -> bool:
    """Is this `torch.no_grad()` or `torch.inference_mode()`?"""
    name = dotted(node.func if isinstance(node, ast.Call) else node)
    return name is not None and name.rpartition(".")[2] in _NO_GRADIENTS


def literal_keywords(call: ast.Call) -> dict[str, Any]:
    """The keyword arguments of a call that are literals."""
    found: dict[str, Any] = {}
    for word in call.keywords:
        if word.arg is not None and isinstance(word.value, ast.Constant | ast.UnaryOp | ast.List | ast.Tuple):
            try:
                found[word.arg] = ast.literal_eval(word.value)
            except ValueError:
                continue
    return found
