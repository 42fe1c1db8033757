"""Rules about the values that parameters start with."""
