"""Scale and shift of new norms, set so that each channel has the mean and variance that it had before.

One layer after the other, in the order of the forward, each behind those that were set already. It is tried
on half of the batches and judged on the other half: what does not bring the outputs nearer is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.errors import TraceError, UsageError, brief
from normdoctor.probing.data import Arguments, Feed
from normdoctor.probing.sandbox import sandbox, undisturbed
from normdoctor.rewriting.built import Tail
from normdoctor.rewriting.scene import Scene
from normdoctor.tracing.recording import output_tensors

#: Batches that are read at most.
BATCHES = 16
#: A scale is changed by this factor at most, in either direction: beyond, the channel is hardly used.
LARGEST = 10.0


class Calibration:
    """The statistics of the old layers' outputs, and what is done with them."""

    def __init__(self, scene: Scene, layers: dict[str, nn.Module]) -> None:
        self.scene = scene
        self.model = scene.model
        with undisturbed():
            self.calls = list(Feed(scene.data, limit=BATCHES).calls(scene.model))
        if not self.calls:
            raise UsageError("the data holds no batches to calibrate with")
        self.targets = dict(zip(layers, self._moments(layers), strict=True))
        self.outputs = [self._outputs(call) for call in self.held]

    @property
    def fitted(self) -> list[Arguments]:
        """The batches to set by."""
        return self.calls[::2]

    @property
    def held(self) -> list[Arguments]:
        """The batches to judge by; the same where there is only one."""
        return self.calls[1::2] or self.calls

    def apply(self, layers: dict[str, nn.Module]) -> str:
        """Set scale and shift of each layer, unless the outputs get worse; says what was done."""
        before = self._error()
        kept = [(value, value.detach().clone()) for one in layers.values() for value in _affine(one)]
        try:
            for path in self._in_order(layers):
                self._match(path, layers[path])
            after = self._error()
        except BaseException:
            _put_back(kept)
            raise
        if not after < before:
            _put_back(kept)
            return f"data: matching the moments does not help (error {after:.3g}, without {before:.3g})"
        for value, old in kept:
            fresh = value.detach().clone()
            with torch.no_grad():
                value.copy_(old)
            self.scene.journal.write(value, fresh)
        return f"data: scale and shift match the moments of before (error {after:.3g}, without {before:.3g})"

    def _match(self, path: str, module: Any) -> None:
        if len(_affine(module)) != 2:
            return
        target, found = self.targets[path], next(self._moments({path: module}))
        if target is None or found is None:
            return
        (mean, variance), (now_mean, now_variance) = target, found
        factor = (variance / now_variance.clamp_min(1e-12)).sqrt().clamp(1 / LARGEST, LARGEST)
        factor = torch.where(now_variance > 1e-10, factor, torch.ones_like(factor))
        with torch.no_grad():
            shift = mean - (now_mean - module.bias) * factor
            module.weight.mul_(factor.to(module.weight.dtype))
            module.bias.copy_(shift)

    def _in_order(self, layers: dict[str, nn.Module]) -> list[str]:
        """Their paths, as the forward calls them."""
        order: dict[str, None] = {}
        with _Listening(layers, lambda path, _: order.setdefault(path)):
            self._run(self.fitted[0])
        return list(order)

    def _moments(self, layers: dict[str, nn.Module]) -> Iterator[tuple[Tensor, Tensor] | None]:
        """Mean and variance of each channel of what the norm of each layer returns, before its tail."""
        sums: dict[str, list[Tensor]] = {}

        def note(key: str, y: Tensor) -> None:
            rows = y.detach().transpose(0, 1).flatten(1).double()
            part = torch.stack(
                [torch.full_like(rows[:, 0], rows.shape[1]), rows.sum(1), rows.square().sum(1)]
            )
            sums.setdefault(key, []).append(part)

        with _Listening(layers, note):
            for call in self.fitted:
                self._run(call)
        for path in layers:
            found = sums.get(path)
            if found is None:
                yield None
                continue
            count, total, squares = torch.stack(found).sum(0)
            mean = total / count
            yield mean, (squares / count - mean.square()).clamp_min(0)

    def _run(self, call: Arguments) -> Any:
        with sandbox(self.model), torch.no_grad():
            self.model.eval()
            try:
                return self.model(*call[0], **call[1])
            except Exception as error:
                raise TraceError(f"the model raised on a batch of the data: {brief(error)}") from error

    def _outputs(self, call: Arguments) -> list[Tensor]:
        return [one.double() for _, one in output_tensors(self._run(call)) if one.is_floating_point()]

    def _error(self) -> float:
        """The norm of the difference of outputs over that of the old outputs, on the batches to judge by."""
        error, size = 0.0, 0.0
        for call, old in zip(self.held, self.outputs, strict=True):
            for a, b in zip(old, self._outputs(call), strict=True):
                error += (a - b).square().sum().item()
                size += a.square().sum().item()
        return (error / size) ** 0.5 if size else 0.0


class _Listening:
    """Forward hooks on layers, as long as the context lasts."""

    def __init__(self, modules: dict[str, nn.Module], note: Any) -> None:
        self.modules, self.note = modules, note
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for key, module in self.modules.items():

            def hook(_: nn.Module, __: Any, y: Any, key: str = key) -> None:
                if isinstance(y, Tensor) and y.dim() > 1:
                    self.note(key, y)

            self.handles.append(module.register_forward_hook(hook))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _put_back(kept: list[tuple[nn.Parameter, Tensor]]) -> None:
    with torch.no_grad():
        for value, old in kept:
            value.copy_(old)


def _affine(module: nn.Module) -> list[nn.Parameter]:
    """Scale and shift, where they are the last that a layer does."""
    if getattr(module, "activation", None) is not None or isinstance(module, Tail):
        return []
    found = [module._parameters.get(name) for name in ("weight", "bias")]
    return [one for one in found if one is not None and one.dim() == 1]
