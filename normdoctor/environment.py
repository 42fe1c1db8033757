"""The versions that a report names; read from metadata, so that torch is not imported."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import normdoctor


def environment() -> dict[str, str]:
    """The versions of normdoctor, torch and Python, and the system."""
    torch = sys.modules.get("torch")
    try:
        torch_version = str(getattr(torch, "__version__", "")) or version("torch")
    except PackageNotFoundError:
        torch_version = ""
    return {
        "normdoctor": normdoctor.__version__,
        "torch": torch_version,
        "python": platform.python_version(),
        "platform": sys.platform,
    }
