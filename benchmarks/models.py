"""The zoos: models that nobody of this project wrote, by name, built with random weights.

Needs timm, torchvision, transformers or pytorchcv to be installed. `SHIM`, if set in the environment
(`NORMDOCTOR_ZOO_SHIM`), is a folder with `torchvision_ops.py`, which makes torchvision importable beside
a CPU build of torch.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from normdoctor.loading.example import ExampleInputs
from normdoctor.tracing.inference import _from_config


@dataclass(frozen=True)
class Entry:
    """One model: `build()` makes it on the current default device; `inputs` are its arguments."""

    zoo: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[nn.Module], Any]
    expected: bool = True
    """Whether it is known to run with these inputs."""


def _shim() -> None:
    folder = os.environ.get("NORMDOCTOR_ZOO_SHIM")
    if folder and "torchvision_ops" not in sys.modules:
        sys.path.insert(0, folder)
        importlib.import_module("torchvision_ops")


def timm_families() -> list[str]:
    """One model a family: the shortest name that each module of timm registers."""
    _shim()
    timm = importlib.import_module("timm")
    names = []
    for module in sorted(timm.list_modules()):
        models = timm.list_models(module=module)
        if models:
            names.append(min(models, key=lambda name: (len(name), name)))
    return sorted(set(names))


def timm(batch: int = 2) -> Iterator[Entry]:
    """Timm's families."""

    def build(name: str) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            return importlib.import_module("timm").create_model(name)  # type: ignore[no-any-return]

        return make

    def inputs(model: Any) -> torch.Tensor:
        size = (getattr(model, "default_cfg", None) or {}).get("input_size", (3, 224, 224))
        return torch.randn(batch, *size)

    for name in timm_families():
        yield Entry("timm", name, build(name), inputs)


def torchvision(batch: int = 2) -> Iterator[Entry]:
    """Torchvision's classification models."""
    _shim()
    models = importlib.import_module("torchvision.models")

    def build(name: str) -> Callable[[], nn.Module]:
        return lambda: models.get_model(name, weights=None)

    for name in models.list_models(module=models):
        side = 299 if name == "inception_v3" else 224
        yield Entry("torchvision", name, build(name), lambda _, s=side: torch.randn(batch, 3, s, s))


def pytorchcv(limit: int = 200) -> Iterator[Entry]:
    """A sample of pytorchcv, evenly spread over its names."""
    _shim()
    provider = importlib.import_module("pytorchcv.model_provider")
    names = sorted(provider._models)
    for name in names[:: max(1, len(names) // limit)][:limit]:
        yield Entry(
            "pytorchcv",
            name,
            lambda n=name: provider.get_model(n),
            lambda model: torch.randn(2, 3, *getattr(model, "in_size", (224, 224))),
        )


def transformers(batch: int = 2) -> Iterator[Entry]:
    """Every transformers type that builds from its default config."""
    _shim()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    library = importlib.import_module("transformers")
    library.logging.set_verbosity_error()
    mapping = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES

    def build(kind: str) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            config = library.AutoConfig.for_model(kind)
            with contextlib.suppress(Exception):
                config._attn_implementation = "eager"
            return library.AutoModel.from_config(config, attn_implementation="eager")  # type: ignore[no-any-return]

        return make

    for kind in sorted(mapping):
        yield Entry("transformers", kind, build(kind), _transformers_inputs, expected=False)


def _transformers_inputs(model: Any) -> ExampleInputs:
    """By the model's `main_input_name`, as far as its bare forward on meta takes it."""
    choices = list(itertools.islice(_from_config(model), 6))
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for example in choices:
        with contextlib.suppress(Exception):
            model(**{key: value.to(device) for key, value in example.kwargs.items()})
            return example
    if choices:
        return choices[0]
    return ExampleInputs((), {"input_ids": torch.zeros(2, 16, dtype=torch.int64)})


ZOOS: dict[str, Callable[[], Iterator[Entry]]] = {
    "timm": timm,
    "torchvision": torchvision,
    "transformers": transformers,
    "pytorchcv": pytorchcv,
}
