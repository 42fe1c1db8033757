"""Statistics of large weights take little memory beside the weights."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from normdoctor.tracing.weights import describe
mode = sys.argv[1]
tensor = torch.empty(8192, 16384, dtype=torch.bfloat16 if mode == "half" else torch.float32)
for part in tensor.split(256):
    part.normal_(0, 0.02)
if mode == "transposed":
    tensor = tensor.t()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fact = describe(tensor)
print(fact.init.distribution, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("mode", ["float", "half", "transposed"])
def test_extra_memory(mode):
    run = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    name, extra = run.stdout.split()
    assert name == "normal"
    assert int(extra) < 200_000, "kB beside the weights themselves"
