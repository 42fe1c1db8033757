"""Frameworks that need not be there."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from normdoctor.errors import NormDoctorError


class MissingExtraError(NormDoctorError, ImportError):
    """A framework that is asked for is not installed."""


def required(*names: str, package: str) -> ModuleType:
    """The first of these modules that is installed; MissingExtraError names what to install.

    Args:
        names: Modules that serve alike.
        package: What pip is to be given.
    """
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            # A framework that is there and lacks something of its own says so itself.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
    raise MissingExtraError(
        f"{' or '.join(names)} is not installed", hint=f"Install it with: pip install '{package}'"
    )
