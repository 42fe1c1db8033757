"""Which parts of a module its owner calls: of a LightningModule, the networks that `training_step` runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from normdoctor.probing.eager import eager
from normdoctor.probing.hooks import Hook, in_backward

#: More parts than this are layers of one network, called one after the other.
_MOST = 4


class Called:
    """Notes by hooks which modules with parameters are called from outside of all others.

    Args:
        root: The module whose parts are followed.
        redirected: Its own forward stands for something else, as where DistributedDataParallel runs
            `training_step` through it.
    """

    def __init__(self, root: nn.Module, *, redirected: bool = False) -> None:
        self.root = root
        self.redirected = redirected
        self.found: dict[str, nn.Module] = {}
        self._inside: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []
        self._skip = redirected

    def attach(self) -> None:
        """Put the hooks on."""
        eager.enter(self)
        for path, module in self.root.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._handles += [
                    module.register_forward_pre_hook(Hook(self._enter, path)),
                    module.register_forward_hook(Hook(self._exit), always_call=True),
                ]

    def detach(self) -> None:
        """Take them off."""
        eager.leave(self)
        while self._handles:
            self._handles.pop().remove()

    def fresh(self) -> None:
        """Another batch begins."""
        self._inside.clear()
        self._skip = self.redirected

    def networks(self) -> dict[str, nn.Module]:
        """What to watch, by path: the parts that are called, or the root where these are single layers."""
        layers = len(self.found) > 1 and any(not list(one.children()) for one in self.found.values())
        if "" in self.found or layers or len(self.found) > _MOST:
            return {"": self.root}
        return dict(self.found)

    def _enter(self, path: str, module: nn.Module, args: Any) -> None:
        if not torch.is_grad_enabled() or in_backward():
            return
        if self._skip and module is self.root:
            self._skip = False
            return
        if not self._inside and next(module.parameters(), None) is not None:
            self.found[path] = module
        self._inside.append(module)

    def _exit(self, module: nn.Module, args: Any, output: Any) -> None:
        if any(one is module for one in self._inside):
            while self._inside.pop() is not module:
                pass
