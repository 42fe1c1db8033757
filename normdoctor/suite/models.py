"""Running a test for each of several models, which are built when it is their turn."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from normdoctor.config import anchor
from normdoctor.errors import NormDoctorError, UsageError
from normdoctor.selection import split_node_id

if TYPE_CHECKING:
    from torch import nn

    from normdoctor.loading.target import Target
    from normdoctor.suite.state import State

#: The model of a test to what is known of it: its declared inputs, and where its layers were built.
_TARGETS: weakref.WeakKeyDictionary[Any, Target] = weakref.WeakKeyDictionary()


def parametrize(state: State, metafunc: pytest.Metafunc) -> None:
    """Give `normdoctor_model` each target of the marker `normdoctor_models`, or of the configuration."""
    try:
        names = _names(state, metafunc)
    except NormDoctorError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    if names:
        metafunc.parametrize("normdoctor_model", list(names.values()), indirect=True, ids=list(names))


def _names(state: State, metafunc: pytest.Metafunc) -> dict[str, str]:
    """What the user calls each model, to a target string as seen from the current folder."""
    marks = list(metafunc.definition.iter_markers("normdoctor_models"))
    if not marks:
        settings = state.settings
        named = {alias: spec for alias, spec in settings.aliases.items() if spec in settings.targets}
        specs = {spec: spec for spec in settings.targets if spec not in named.values()}
        return {name: split_node_id(spec)[0] for name, spec in (named | specs).items()}
    found: dict[str, str] = {}
    for mark in reversed(marks):
        wrong = [*mark.kwargs, *(repr(one) for one in mark.args if not isinstance(one, str))]
        if wrong or not mark.args:
            raise UsageError(
                f"the marker normdoctor_models takes target strings, found {', '.join(wrong) or 'none'}",
                hint='For example @pytest.mark.normdoctor_models("model.py:Net", "pkg.models:resnet18").',
            )
        for spec in mark.args:
            found[spec] = split_node_id(anchor(_beside(spec, metafunc), metafunc.config.rootpath))[0]
    return found


def _beside(spec: str, metafunc: pytest.Metafunc) -> str:
    """A file that lies beside the test file is meant before one of the root."""
    return anchor(spec, Path(metafunc.definition.path).parent)


def build(state: State, spec: str | None) -> nn.Module:
    """Load the model that a target string names."""
    __tracebackhide__ = True
    from normdoctor.loading.target import from_object

    if spec is None:
        raise UsageError(
            "normdoctor_model: no model is named",
            hint='Mark the test: @pytest.mark.normdoctor_models("model.py:Net"), or set normdoctor_targets.',
        )
    try:
        target = from_object(spec)
    except NormDoctorError as error:
        pytest.fail(f"{spec}: {error}", pytrace=False)
    _TARGETS[target.model] = target
    return target.model


@contextmanager
def recorded(state: State) -> Iterator[None]:
    """Note where the models of a test are built, so that findings name the line."""
    try:
        from normdoctor.loading.origins import Origins, record_origins
    except ImportError:  # no torch: the test that needs it says so
        yield
        return
    if state.origins is None:
        state.origins = Origins(filled=False)
    with record_origins(state.origins):
        yield


def target_of(state: State, model: Any) -> Any:
    """What is known of a model that was built in a test, or by `build`; anything else as it is."""
    from torch import nn

    if not isinstance(model, nn.Module):
        return model
    if model in _TARGETS:
        return _TARGETS[model]
    origins = state.origins
    if origins is None or not any(origins.sites(module) for module in model.modules()):
        return model
    from normdoctor.loading.target import from_object

    return replace(from_object(model), origins=origins)
