"""What carries the recorded forward: tensors without data, or copies that may be overwritten.

The model is borrowed, not changed: for the time of one forward its tensors are swapped for stand-ins
on the meta device (shapes only), fake tensors (shapes and a device) or copies (values too).
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from normdoctor.loading.state import Inventory, Snapshot, inventory
from normdoctor.tracing.uncompiled import without_compiler

Carrier = Literal["meta", "fake", "real"]


class Stand:
    """Makes stand-ins for tensors, the same one for the same tensor, so that ties stay ties."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.mode = FakeTensorMode(allow_non_fake_inputs=True) if carrier == "fake" else None
        self._memo: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The stand-in of a tensor of the model: requires_grad, dtype and strides are kept."""
        known = self._memo.get(id(tensor))
        if known is None:
            made = self._make(tensor)
            known = self._memo[id(tensor)] = (tensor, made)
            self._memo[id(made)] = (made, made)
        return known[1]

    def _make(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.carrier == "meta" and tensor.device.type == "meta":
            return tensor
        if self.mode is not None:
            return self.mode.from_tensor(tensor)
        with torch.no_grad():
            bare = tensor.detach()
            made = bare.to("meta") if self.carrier == "meta" else bare.clone()
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(made, requires_grad=tensor.requires_grad)
        return made.requires_grad_(tensor.requires_grad) if made.is_floating_point() else made

    def value(self, tensor: torch.Tensor) -> torch.Tensor:
        """The stand-in of an input.

        On meta, inputs that are no floats (token ids, masks, lengths) keep their values: what the
        model derives from them alone stays known, and few models need more than that.
        """
        if self.carrier == "meta" and not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.detach().clone() if tensor.device.type != "meta" else tensor
        return self(tensor)


@contextmanager
def borrowed(model: nn.Module, parts: Inventory, carrier: Carrier) -> Iterator[Stand]:
    """Swap the model's tensors for stand-ins inside the context; afterwards nothing has changed.

    Random number generators, grad mode and torch's fast path for attention are put back as well.
    """
    stand = Stand(carrier)
    snapshot = Snapshot([entry.module for entry in parts.modules.values()])
    with ExitStack() as stack:
        stack.enter_context(kept_generators())
        stack.callback(snapshot.restore)
        stack.enter_context(_slow_attention())
        stack.enter_context(without_compiler())
        stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))
        with torch._C.DisableTorchFunction():
            snapshot.map_tensors(stand)
        if stand.mode is not None:
            stack.enter_context(_quiet("torch._subclasses.fake_tensor"))
            stack.enter_context(stand.mode)
        yield stand


@contextmanager
def lent(modules: tuple[nn.Module, ...], stand: Stand) -> Iterator[None]:
    """Swap the tensors of further modules (a loss with its own) for stand-ins inside the context."""
    entries = [entry for module in modules for entry in inventory(module).modules.values()]
    snapshot = Snapshot([entry.module for entry in entries])
    try:
        with torch._C.DisableTorchFunction():
            snapshot.map_tensors(stand)
        yield
    finally:
        snapshot.restore()


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Keep torch from logging a trial that failed: the next carrier may well succeed."""
    log = logging.getLogger(logger)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def kept_generators() -> Iterator[None]:
    """Put back the state of every random number generator that a forward could move."""
    python = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    cpu = torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None and numpy_state is not None:
            numpy.random.set_state(numpy_state)
        torch.random.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Turn torch's fused encoder layer off, which would hide norms and activations in one call."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
