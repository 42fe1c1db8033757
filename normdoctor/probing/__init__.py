"""Measuring a model as it runs, without leaving a trace in it."""

from normdoctor.probing.probe import measure

__all__ = ["measure"]
