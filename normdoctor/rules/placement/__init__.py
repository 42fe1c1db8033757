"""Rules about where a norm stands: neighbours, shapes and calls."""
