"""Rules about norms that are written by hand."""
