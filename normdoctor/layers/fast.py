"""The fast path: which implementation computes a norm of an input of this shape, layout, type and device.

Every one of them has the signature of the function of its name in `reference`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from normdoctor.errors import UsageError
from normdoctor.layers import native
from normdoctor.layers.backends import Backend
from normdoctor.layers.cpu import channels, groups, rows

#: On a CPU: compositions of torch's kernels, each of which goes to `native` where that is as fast.
_CPU: dict[str, Callable[..., Any]] = {
    "batch_norm": channels.batch_norm,
    "group_norm": groups.group_norm,
    "rms_norm": rows.rms_norm,
}
#: BatchNorm that moves the running statistics itself; None where that is not the fastest.
tracked = channels.tracked
#: Values of an input below which starting the kernels takes longer than torch's. Not measured yet.
SMALL = 1 << 20


def implementation(name: str, x: Tensor, backend: Backend, size: object = None) -> Callable[..., Any]:
    """The function of this name for `backend` "auto", "torch" or "triton" and an input that is not empty.

    `size` is the normalized shape, or the number of groups.

    Raises:
        UsageError: If `backend` is "triton" and Triton is not installed, or takes no such input.
    """
    kernels = _KERNELS
    able = kernels is not None and kernels.usable(name, x, size)
    if backend == "triton":
        if not able:
            raise _refusal(kernels, x)
        return getattr(kernels, name)  # type: ignore[no-any-return]
    # On Hopper torch's own kernels of layer and RMS norm are close to what the memory gives.
    better = x.is_cuda and name not in ("layer_norm", "rms_norm") and x.numel() >= SMALL
    if able and better and backend == "auto":
        return getattr(kernels, name)  # type: ignore[no-any-return]
    if x.device.type == "cpu" and name in _CPU:
        return _CPU[name]
    return getattr(native, name)  # type: ignore[no-any-return]


def _kernels() -> ModuleType | None:
    """The kernels, where there may be a card or Triton's interpreter stands in for one."""
    if torch.version.cuda is None and os.environ.get("TRITON_INTERPRET") != "1":
        return None
    try:
        return import_module("normdoctor.layers.kernels")
    except ImportError:
        return None


# Not found out in a call: a compiler cannot look into that.
_KERNELS = _kernels()


def _refusal(kernels: ModuleType | None, x: Tensor) -> UsageError:
    if kernels is None:
        wanted = "backend 'triton' needs Triton, and a torch that is built for CUDA"
        return UsageError(f"{wanted}; got torch {torch.__version__}", hint="take backend='auto'")
    found = f"{x.dtype} on {x.device} of shape {tuple(x.shape)}"
    wanted = "float16, bfloat16 and float32 tensors on a CUDA device, and rows of up to 65536 values"
    return UsageError(f"backend 'triton' takes {wanted}; got {found}", hint="take backend='auto'")
