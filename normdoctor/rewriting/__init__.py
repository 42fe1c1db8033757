"""Changing a live model, and proving what the change did to it."""
