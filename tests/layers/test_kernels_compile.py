"""The Triton kernels compile for a Hopper card, without one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SCRIPT = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from normdoctor.layers.kernels import rows, slabs

VALUES = {"x", "y", "grad", "residual", "dx", "dresidual", "weight", "bias"}
FLOATS = {"eps", "count"}
POINTERS = {"out", "shares", "statistics", "sums", "levels", "mean", "rstd", "dweight", "dbias"}

def compiled(kernel, values, **constants):
    # What is unit here is unit in one of the layouts: the compiler then reads along it.
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in VALUES:
            signature[name] = "*" + values
        elif name in POINTERS:
            signature[name] = "*fp32"
        else:
            signature[name] = "fp32" if name in FLOATS else "i32"
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert made.asm["ptx"] and "atom." not in made.asm["ptx"]
    return made

count = 0
values = sys.argv[1]
for layout in ({"stride_l": 1, "tall": 4096, "broad": 1}, {"stride_c": 1, "tall": 32, "broad": 128}):
    compiled(slabs.moments, values, **layout)
    for kind in ("none", "silu"):
        extra = {} if kind == "silu" else {"residual": None, "dresidual": None}
        for kernel in (slabs.apply, slabs.sums, slabs.back):
            given = {name: value for name, value in extra.items() if name in kernel.arg_names}
            compiled(kernel, values, **given, kind=kind, **layout)
    bare = {"statistics": None, "weight": None, "bias": None, "residual": None, "kind": "none"}
    compiled(slabs.apply, values, **bare, **layout)
    compiled(slabs.back, values, **bare, dresidual=None, levels=None, **layout)
compiled(slabs.merge, values, block=1024)
compiled(slabs.total, values, many=32, broad=128)
for broad, tall in ((1024, 2), (8192, 1)):
    for centre in (False, True):
        compiled(rows.forward, values, centre=centre, kind="gelu_tanh", tall=tall, broad=broad)
        compiled(rows.backward, values, centre=centre, kind="leaky_relu", tall=tall, broad=broad)
        nothing = {"residual": None, "dresidual": None, "bias": None, "dbias": None}
        compiled(rows.backward, values, centre=centre, kind="none", tall=tall, broad=broad, **nothing)
print("compiled")
"""


@pytest.mark.kernels
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("values", ["bf16", "fp16", "fp32"])
def test_every_kernel_compiles_without_a_card(values, tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, values], env=environment, capture_output=True, text=True, check=False
    )
    assert "compiled" in done.stdout, done.stderr[-3000:]
