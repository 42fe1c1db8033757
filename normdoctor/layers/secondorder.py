"""Second derivatives of what has no formula of its own for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of `formula(*inputs)`, themselves differentiable, None where an input takes none."""
    wanted = {index: one for index, one in enumerate(inputs) if one is not None and one.requires_grad}
    with torch.enable_grad():
        y = formula(*inputs)
        given = torch.autograd.grad(y, list(wanted.values()), grad, create_graph=True, allow_unused=True)
    found = dict(zip(wanted, given, strict=True))
    return [found.get(index) for index in range(len(inputs))]
