"""Applying the fixes of findings: to source files, proved before they are written, and to live models."""

from normdoctor.errors import UsageError


def demand_libcst() -> None:
    """Raise UsageError where libcst is not installed; call it before the modules that import libcst."""
    try:
        import libcst  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "changing source needs libcst, which is not installed",
            hint="Install it with: pip install 'normdoctor[fix]'",
        ) from error
