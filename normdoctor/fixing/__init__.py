"""Applying the fixes of findings: to source files, proved before they are written, and to live models."""
