"""Operators: each puts one fault, as people write it, at every place of a net where it can stand."""

from __future__ import annotations

from . import activations, initialization, norms, outputs, placement, state
from .table import OPERATORS

__all__ = ["OPERATORS", "activations", "initialization", "norms", "outputs", "placement", "state"]
