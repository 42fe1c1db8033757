"""What a call computes: one table from names to kind, role and arguments, open to users.

A kind is the word that torch.nn.functional has for it (`conv2d`), whichever way it was called: a
module, a function, a method, its in-place form or an aten operator. A role is one of a small closed
set (see `normdoctor.facts.Node`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

#: Kinds that read the values of their first tensor alone: of another one the type or the shape.
READ_ONE = frozenset("to type_as view_as reshape_as expand_as".split())
# role -> kind -> names of the arguments, in the order of the function's signature
_FUNCTIONS: dict[str, dict[str, str]] = {
    "norm": {
        "batch_norm": "input running_mean running_var weight bias training momentum eps",
        "instance_norm": "input running_mean running_var weight bias use_input_stats momentum eps",
        "layer_norm": "input normalized_shape weight bias eps",
        "group_norm": "input num_groups weight bias eps",
        "rms_norm": "input normalized_shape weight eps",
        "local_response_norm": "input size alpha beta k",
        "normalize": "input p dim eps",
    },
    "activation": {
        "relu": "input inplace",
        "relu6": "input inplace",
        "leaky_relu": "input negative_slope inplace",
        "prelu": "input weight",
        "rrelu": "input lower upper training inplace",
        "elu": "input alpha inplace",
        "selu": "input inplace",
        "celu": "input alpha inplace",
        "gelu": "input approximate",
        "silu": "input inplace",
        "mish": "input inplace",
        "hardswish": "input inplace",
        "hardsigmoid": "input inplace",
        "hardtanh": "input min_val max_val inplace",
        "sigmoid": "input",
        "logsigmoid": "input",
        "tanh": "input",
        "softplus": "input beta threshold",
        "softsign": "input",
        "tanhshrink": "input",
        "softshrink": "input lambd",
        "hardshrink": "input lambd",
        "threshold": "input threshold value inplace",
        "glu": "input dim",
    },
    "softmax": {
        "softmax": "input dim",
        "log_softmax": "input dim",
        "softmin": "input dim",
        "gumbel_softmax": "logits tau hard eps dim",
    },
    "linear": {
        "linear": "input weight bias",
        "bilinear": "input1 input2 weight bias",
        "conv1d": "input weight bias stride padding dilation groups",
        "conv2d": "input weight bias stride padding dilation groups",
        "conv3d": "input weight bias stride padding dilation groups",
        "conv_transpose1d": "input weight bias stride padding output_padding groups dilation",
        "conv_transpose2d": "input weight bias stride padding output_padding groups dilation",
        "conv_transpose3d": "input weight bias stride padding output_padding groups dilation",
        "embedding": "input weight padding_idx",
        "embedding_bag": "input weight",
        "lstm": "input",
        "gru": "input",
        "rnn": "input",
        "lstm_cell": "input",
        "gru_cell": "input",
        "rnn_cell": "input",
        "addmm": "bias input weight",
    },
    "dropout": {
        "dropout": "input p training inplace",
        "dropout1d": "input p training inplace",
        "dropout2d": "input p training inplace",
        "dropout3d": "input p training inplace",
        "alpha_dropout": "input p training inplace",
        "feature_alpha_dropout": "input p training inplace",
    },
    "add": {"add": "input other alpha", "sub": "input other alpha"},
    "concat": {
        "cat": "tensors dim",
        "stack": "tensors dim",
        "hstack": "tensors",
        "vstack": "tensors",
        "dstack": "tensors",
    },
    "pool": {
        **{f"max_pool{n}d": "input kernel_size stride padding dilation" for n in "123"},
        **{f"avg_pool{n}d": "input kernel_size stride padding" for n in "123"},
        **{f"adaptive_avg_pool{n}d": "input output_size" for n in "123"},
        **{f"adaptive_max_pool{n}d": "input output_size" for n in "123"},
        **{f"lp_pool{n}d": "input norm_type kernel_size" for n in "12"},
        **{f"fractional_max_pool{n}d": "input kernel_size" for n in "23"},
        **{f"max_unpool{n}d": "input indices kernel_size" for n in "123"},
    },
    "reshape": {
        **dict.fromkeys(
            (
                "identity t contiguous clone to type float half bfloat16 double detach alias view_as "
                "reshape_as requires_grad channel_shuffle pixel_shuffle pixel_unshuffle cpu cuda type_as "
                "adjoint expand_as slice broadcast_to fold data"
            ).split(),
            "input",
        ),
        "view": "input *shape",
        "reshape": "input *shape",
        "expand": "input *sizes",
        "repeat": "input *sizes",
        "tile": "input *sizes",
        "permute": "input *dims",
        "flip": "input *dims",
        "unflatten": "input dim sizes",
        "transpose": "input dim0 dim1",
        "swapaxes": "input dim0 dim1",
        "movedim": "input source destination",
        "moveaxis": "input source destination",
        "squeeze": "input dim",
        "unsqueeze": "input dim",
        "chunk": "input chunks dim",
        "split": "input sizes dim",
        "unbind": "input dim",
        "narrow": "input dim start length",
        "select": "input dim index",
        "index_select": "input dim index",
        "gather": "input dim index",
        "roll": "input shifts dims",
        "repeat_interleave": "input repeats dim",
        "unfold": "input dimension size step",
        "pad": "input pad mode value",
        "flatten": "input start_dim end_dim",
        "getitem": "input index",
    },
    "reduce": {
        **dict.fromkeys(
            "mean sum amax amin max min logsumexp prod nanmean median argmax argmin cumsum".split(),
            "input dim keepdim",
        ),
        **dict.fromkeys("var std var_mean std_mean".split(), "input dim unbiased keepdim"),
        "norm": "input p dim keepdim",
    },
    "attention": {
        "scaled_dot_product_attention": "query key value attn_mask dropout_p is_causal scale",
        "multi_head_attention": "query key value",
    },
    "loss": dict.fromkeys(
        (
            "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss "
            "l1_loss smooth_l1_loss huber_loss kl_div poisson_nll_loss gaussian_nll_loss "
            "hinge_embedding_loss multi_margin_loss multilabel_margin_loss "
            "multilabel_soft_margin_loss soft_margin_loss margin_ranking_loss triplet_margin_loss "
            "cosine_embedding_loss ctc_loss triplet_margin_with_distance_loss"
        ).split(),
        "input target",
    ),
    "other": {
        "mul": "input other",
        "div": "input other",
        "matmul": "input other",
        "einsum": "equation operands",
        "pow": "input exponent",
        "clamp": "input min max",
        "interpolate": "input size scale_factor mode",
        "setitem": "input index value",
        "topk": "input k dim",
        "sort": "input dim",
    },
}

KINDS: dict[str, str] = {kind: role for role, kinds in _FUNCTIONS.items() for kind in kinds}
ARGUMENTS: dict[str, tuple[str, ...]] = {
    kind: tuple(names.split()) for kinds in _FUNCTIONS.values() for kind, names in kinds.items()
}

#: Other spellings of the same computation: operators, old names, aten's.
_SPELLINGS = {
    "iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "subtract": "sub",
    "imul": "mul", "rmul": "mul", "multiply": "mul", "truediv": "div", "rtruediv": "div",
    "itruediv": "div", "true_divide": "div", "divide": "div", "rmatmul": "matmul", "bmm": "matmul",
    "mm": "matmul", "baddbmm": "matmul", "mv": "matmul", "inner": "matmul", "tensordot": "matmul",
    "concat": "cat", "concatenate": "cat", "swapdims": "transpose", "mT": "transpose", "T": "transpose",
    "H": "transpose", "clip": "clamp", "clamp_min": "clamp", "clamp_max": "clamp", "special_expit": "sigmoid",
    "expit": "sigmoid", "upsample": "interpolate", "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm", "native_batch_norm": "batch_norm", "cudnn_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm", "_native_batch_norm_legit_functional": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm", "_fused_rms_norm": "rms_norm",
    "_softmax": "softmax", "_log_softmax": "log_softmax", "native_dropout": "dropout",
    "feature_dropout": "dropout2d", "_unsafe_view": "view", "adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "convolution": "conv2d", "ravel": "flatten", "split_with_sizes": "split", "tensor_split": "split",
    "hsplit": "split", "vsplit": "split", "boolean_dispatch": "max_pool2d", "linalg_norm": "norm",
    "vector_norm": "norm", "linalg_vector_norm": "norm", "constant_pad_nd": "pad", "square": "pow",
}  # fmt: skip

#: torch.nn class name -> kind. Subclasses are found through their bases.
MODULES: dict[str, str] = {
    **{f"{lazy}BatchNorm{n}d": "batch_norm" for n in "123" for lazy in ("", "Lazy")},
    "SyncBatchNorm": "batch_norm",
    **{f"{lazy}InstanceNorm{n}d": "instance_norm" for n in "123" for lazy in ("", "Lazy")},
    "LayerNorm": "layer_norm", "GroupNorm": "group_norm", "RMSNorm": "rms_norm",
    "LocalResponseNorm": "local_response_norm", "CrossMapLRN2d": "local_response_norm",
    "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "RReLU": "rrelu",
    "ELU": "elu", "SELU": "selu", "CELU": "celu", "GELU": "gelu", "SiLU": "silu", "Mish": "mish",
    "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "Hardtanh": "hardtanh", "Sigmoid": "sigmoid",
    "LogSigmoid": "logsigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softsign": "softsign",
    "Tanhshrink": "tanhshrink", "Softshrink": "softshrink", "Hardshrink": "hardshrink",
    "Threshold": "threshold", "GLU": "glu",
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Softmax2d": "softmax", "Softmin": "softmin",
    **{f"{lazy}Linear": "linear" for lazy in ("", "Lazy")}, "Bilinear": "bilinear",
    "NonDynamicallyQuantizableLinear": "linear",
    **{f"{lazy}Conv{n}d": f"conv{n}d" for n in "123" for lazy in ("", "Lazy")},
    **{f"{lazy}ConvTranspose{n}d": f"conv_transpose{n}d" for n in "123" for lazy in ("", "Lazy")},
    "Embedding": "embedding", "EmbeddingBag": "embedding_bag", "LSTM": "lstm", "GRU": "gru", "RNN": "rnn",
    "LSTMCell": "lstm_cell", "GRUCell": "gru_cell", "RNNCell": "rnn_cell",
    "Dropout": "dropout", "Dropout1d": "dropout1d", "Dropout2d": "dropout2d", "Dropout3d": "dropout3d",
    "AlphaDropout": "alpha_dropout", "FeatureAlphaDropout": "feature_alpha_dropout",
    **{f"{how}Pool{n}d": f"{kind}{n}d" for n in "123" for how, kind in (
        ("Max", "max_pool"), ("Avg", "avg_pool"), ("AdaptiveAvg", "adaptive_avg_pool"),
        ("AdaptiveMax", "adaptive_max_pool"), ("LP", "lp_pool"), ("FractionalMax", "fractional_max_pool"))},
    "Identity": "identity", "Flatten": "flatten", "Unflatten": "unflatten", "PixelShuffle": "pixel_shuffle",
    "PixelUnshuffle": "pixel_unshuffle", "ChannelShuffle": "channel_shuffle", "Upsample": "interpolate",
    "UpsamplingNearest2d": "interpolate", "UpsamplingBilinear2d": "interpolate",
    "MultiheadAttention": "multi_head_attention",
    "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits", "MSELoss": "mse_loss", "L1Loss": "l1_loss",
    "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss", "KLDivLoss": "kl_div",
    "PoissonNLLLoss": "poisson_nll_loss", "GaussianNLLLoss": "gaussian_nll_loss",
    **{f"{pad}Pad{n}d": "pad" for n in "123" for pad in ("Zero", "Constant", "Reflection", "Replication")},
}  # fmt: skip

ATTRIBUTES = (
    "eps momentum track_running_stats num_features num_groups num_channels normalized_shape "
    "in_features out_features in_channels out_channels kernel_size stride padding dilation "
    "groups num_embeddings embedding_dim padding_idx hidden_size input_size num_layers "
    "bidirectional p inplace negative_slope alpha beta lower upper min_val max_val dim "
    "approximate start_dim end_dim output_size num_heads embed_dim reduction label_smoothing "
    "lambd threshold value size k batch_first proj_size unflattened_size upscale_factor"
).split()


def kind_of_function(name: str, extra: dict[str, str] | None = None) -> tuple[str, str]:
    """(kind, role) of a function, method or aten operator by its name."""
    plain = name.strip("_") if name.startswith("__") else name.rstrip("_") or name
    kind = _SPELLINGS.get(plain, plain)
    role = (extra or {}).get(kind) or KINDS.get(kind, "other")
    return kind, role


def base_of(kind: type[nn.Module]) -> str:
    """The name of the torch.nn class that this class is or derives from, "" for none in the table."""
    for one in kind.__mro__:
        if one.__name__ in MODULES and one.__module__.startswith(("torch.nn.", "torch.ao.nn.")):
            return one.__name__
    return ""


def kind_of_module(kind: type[nn.Module], extra: dict[str, str] | None = None) -> tuple[str, str]:
    """(kind, role) of a module class; a class of the user's is `other` unless `extra` names it."""
    base = base_of(kind)
    word = MODULES.get(base, kind.__name__)
    role = (extra or {}).get(kind.__name__) or KINDS.get(word, "other")
    return word, role


def module_config(module: nn.Module) -> dict[str, Any]:
    """The constructor's settings that matter, as plain values."""
    found = {
        name: plain(value)
        for name in ATTRIBUTES
        if (value := module.__dict__.get(name, _MISSING)) is not _MISSING
        and isinstance(value, bool | int | float | str | tuple | list | type(None))
    }
    parameters = module._parameters
    if "bias" in parameters:
        found["bias"] = parameters["bias"] is not None
    if "weight" in parameters:
        found["affine"] = parameters["weight"] is not None
    elif "affine" in module.__dict__:
        found["affine"] = bool(module.__dict__["affine"])
    return found


_MISSING = object()


#: numpy's words for arguments, which torch takes too, and what `torch.dropout` calls its mode.
_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim", "axis0": "dim0", "axis1": "dim1", "train": "training"}


def plain(value: Any) -> Any:
    """A JSON-able form of a setting."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def bind(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name the positional arguments of a function call.

    A name with a star takes all that are left, given one by one or as one sequence.
    """
    names = ARGUMENTS.get(kind, ())
    if names and names[-1].startswith("*"):
        last = len(names) - 1
        rest = args[last:]
        if rest:
            yield names[last][1:], rest[0] if len(rest) == 1 else rest
        args = args[:last]
    yield from zip(names, args, strict=False)
    for name, value in kwargs.items():
        yield _OTHER_NAMES.get(name, name), value
