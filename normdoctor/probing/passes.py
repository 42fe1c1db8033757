"""What a module and one pass through it look like, told from names and shapes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def running(module: nn.Module) -> bool:
    """Does it hold running means, whatever follows in their name?"""
    return any(
        name.startswith("running_mean") and tensor is not None for name, tensor in module._buffers.items()
    )


def expands(args: tuple[Any, ...], output: Any) -> bool:
    """Does a forward make more of its input, as a generator makes an image of noise?"""
    given = next((one for one in args if isinstance(one, Tensor)), None)
    if given is None or not isinstance(output, Tensor) or not given.is_floating_point():
        return False
    if output.numel() <= given.numel() or output.dim() < 2:
        return False
    return given.dim() == 2 or output.shape[-1] > given.shape[-1]
