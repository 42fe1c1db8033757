"""normdoctor finds, explains, proves and repairs faults of normalization, activation and initialization.

The public names are loaded on first use, so that `import normdoctor` costs nothing and does not
import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normdoctor.doctor import check as check
    from normdoctor.errors import NormDoctorError as NormDoctorError
    from normdoctor.findings import Confidence as Confidence
    from normdoctor.findings import Finding as Finding
    from normdoctor.findings import Severity as Severity
    from normdoctor.fixing.live import fix as fix
    from normdoctor.probing.live import NormDoctorWarning as NormDoctorWarning
    from normdoctor.probing.live import StoppedError as StoppedError
    from normdoctor.probing.recalibrate import recalibrate as recalibrate
    from normdoctor.probing.watch import watch as watch
    from normdoctor.report import Report as Report
    from normdoctor.rewriting.convert import convert as convert
    from normdoctor.rules.base import Rule as Rule

__version__ = "0.1.0"

_HOMES = {
    "check": "normdoctor.doctor",
    "convert": "normdoctor.rewriting.convert",
    "fix": "normdoctor.fixing.live",
    "recalibrate": "normdoctor.probing.recalibrate",
    "watch": "normdoctor.probing.watch",
    "Confidence": "normdoctor.findings",
    "Finding": "normdoctor.findings",
    "NormDoctorError": "normdoctor.errors",
    "NormDoctorWarning": "normdoctor.probing.live",
    "Report": "normdoctor.report",
    "Rule": "normdoctor.rules.base",
    "Severity": "normdoctor.findings",
    "StoppedError": "normdoctor.probing.live",
    "layers": "normdoctor",
}

__all__ = [
    "Confidence",
    "Finding",
    "NormDoctorError",
    "NormDoctorWarning",
    "Report",
    "Rule",
    "Severity",
    "StoppedError",
    "__version__",
    "check",
    "convert",
    "fix",
    "layers",
    "recalibrate",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name == "layers":
        return importlib.import_module("normdoctor.layers")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'normdoctor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
