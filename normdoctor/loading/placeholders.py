"""Placeholders for libraries that a target imports and that are not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import nn

#: Names that stand for "a module of this framework" in libraries built on torch.
_MODULE_NAMES = ("LightningModule", "BaseModule", "Module", "ModelMixin", "PreTrainedModel")


class PlaceholderModule(nn.Module):
    """The base class that stands in for LightningModule and its like."""

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class Placeholder:
    """Something of a missing library: it can be read, called, inherited from, and used as decorator."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give another placeholder, or the function that it decorates."""
        if len(args) == 1 and not kwargs and callable(args[0]) and not isinstance(args[0], Placeholder):
            return args[0]
        return Placeholder(self.__name__)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """Become `PlaceholderModule` as a base class where a module is meant, else nothing."""
        return (PlaceholderModule,) if self.__name__.rpartition(".")[2] in _MODULE_NAMES else ()

    def __getitem__(self, key: Any) -> Any:
        return Placeholder(f"{self.__name__}[{key!r}]")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __repr__(self) -> str:
        return f"<placeholder for {self.__name__}>"


class _MissingModule(ModuleType):
    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Finds the missing libraries, after every other finder has given up."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if any(fullname == name or fullname.startswith(name + ".") for name in self.names):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MissingModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


@contextmanager
def placeholders(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these modules, and of all below them, succeed inside the block."""
    finder = _Finder(names)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if isinstance(sys.modules[name], _MissingModule):
                del sys.modules[name]
