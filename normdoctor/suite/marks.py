"""The markers: their arguments are checked, and a test for a device that is not there is skipped."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from normdoctor.errors import NormDoctorError, UsageError, near

#: What the fixture takes besides the options of `normdoctor.check`.
OWN = ("fail_on", "max_dead", "min_batch")


@cache
def options() -> tuple[str, ...]:
    """The options of a check in a test."""
    from normdoctor.doctor import check

    names = [name for name in inspect.signature(check).parameters if name not in ("model", "settings")]
    return (*names, *OWN)


def known_options(given: Iterable[str], where: str = "") -> None:
    """Raise UsageError for an option that there is not."""
    for name in given:
        if name not in options():
            hint = near(name, list(options())) or f"Known are: {', '.join(options())}."
            raise UsageError(f"{where}unknown argument `{name}`", hint=hint)


def defaults(item: pytest.Item | None) -> dict[str, Any]:
    """What the markers of a test say; the closest wins."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("normdoctor") if item is not None else ():
        _check(mark)
        found = {**mark.kwargs, **found}
    return found


def _check(mark: pytest.Mark) -> None:
    if mark.args:
        hint = 'For example @pytest.mark.normdoctor(select="ND1", fail_on="error").'
        raise UsageError("the marker normdoctor takes keyword arguments only", hint=hint)
    known_options(mark.kwargs, "the marker normdoctor: ")


def validate(items: Iterable[pytest.Item], config: pytest.Config) -> None:
    """Raise a pytest.UsageError for markers with wrong arguments; on a worker of xdist each test says so."""
    if hasattr(config, "workerinput"):
        return  # an error there would be that of the worker
    for item in items:
        try:
            defaults(item)
        except NormDoctorError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from error


def prepare(item: pytest.Item) -> None:
    """Check the markers of a test, and skip it where it asks for a device that torch does not have."""
    try:
        device = defaults(item).get("device")
    except UsageError as error:
        pytest.fail(str(error), pytrace=False)
    if item.get_closest_marker("normdoctor_cuda"):
        device = "cuda"
    if device is not None and (reason := _lacking(str(device))):
        raise skipped(reason)


def skipped(reason: str) -> BaseException:
    """The exception that skips a test, and names the test as the place."""
    return pytest.skip.Exception(reason, _use_item_location=True)


def _lacking(device: str) -> str:
    """Why a test for this device cannot run; empty where it can."""
    kind, _, index = device.partition(":")
    if kind in ("cpu", "meta"):
        return ""
    try:
        import torch
    except ImportError as error:
        return f"needs {device}, and torch cannot be imported: {error}"
    backend: Any = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    if not hasattr(backend, "is_available"):
        return ""  # no device that torch knows: the check says so
    if not backend.is_available():
        return f"needs {device}: torch finds no {kind.upper()} device"
    count = getattr(backend, "device_count", lambda: 1)()
    return f"needs {device}: there are {count}" if index.isdigit() and int(index) >= count else ""
