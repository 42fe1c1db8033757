"""Real models: torchvision beside a CPU build of torch, whose compiled operators do not load there."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def torchvision_here(torchvision_operators: None) -> None:
    """Torchvision imports."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
