"""The commands: each file here defines `command`, and is named as the command is."""
