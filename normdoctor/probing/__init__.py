"""Measuring a model as it runs, without leaving a trace in it."""
