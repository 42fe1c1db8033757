"""The formats: each file here defines `FORMAT`, and is named as the format is."""
