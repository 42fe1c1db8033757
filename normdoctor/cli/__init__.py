"""The command line: one file a command, each imported when it is called."""

from __future__ import annotations

import os

from normdoctor.cli.group import LazyGroup, version_option

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
EPILOG = """\b
Examples:
  normdoctor check model.py
  normdoctor check model.py:Net --input 8,3,224,224
  normdoctor show model.py
  normdoctor explain ND101
"""

main = LazyGroup(
    "normdoctor",
    context_settings=CONTEXT,
    epilog=EPILOG,
    help="Find, explain and repair faults of normalization, activation and initialization in PyTorch models.",
    params=[version_option()],
)

if "_NORMDOCTOR_COMPLETE" in os.environ:  # a shell asks what may be typed
    from normdoctor.cli.completing import register

    register()
