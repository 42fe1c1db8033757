"""Fixtures for tests of what surrounds the rules: a small catalogue, and facts of a small model."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from normdoctor.facts import Facts, Location, ModuleFact, Node, TensorFact

# Workers share the cores: threads of torch on top would only wait for each other. Also for subprocesses.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

BOXES = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    f"qroi_align({BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({BOXES}) -> (Tensor, Tensor)",
    f"ps_roi_align({BOXES}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({BOXES}) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
)

CATALOGUE = Path(__file__).parent / "report" / "catalogue"


@pytest.fixture(scope="session")
def torchvision_operators() -> None:
    """Declare torchvision's operators where its compiled ones do not load, so that it imports."""
    import torch

    known = importlib.util.find_spec("torchvision") is not None
    if known and "torchvision" not in sys.modules and torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        importlib.import_module("torchvision")


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the rules of tests/report/catalogue exist, found in the usual way."""
    import normdoctor.output.charts  # noqa: F401  # charts read thresholds of rules, which are gone afterwards
    from normdoctor import rules

    monkeypatch.setattr(rules, "__path__", [str(CATALOGUE)])
    monkeypatch.setattr(rules, "entry_points", lambda group: ())
    rules.all_rules.cache_clear()
    yield
    rules.all_rules.cache_clear()
    for name in ("samples", "crashes"):
        sys.modules.pop(f"normdoctor.rules.{name}", None)


SOURCE = """\
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.body = nn.Sequential(
            *[nn.Linear(c, c) for _ in range(3)],
        )
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file `model.py` in the current folder; tests may write it anew."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def make_facts() -> Callable[..., Facts]:
    """Builds the facts of SOURCE's Net: a norm at line 7, three linear layers at line 9."""

    def make(
        target: str = "model.py:Net", *, bomb: bool = False, file: str = "model.py", **fields: object
    ) -> Facts:
        place = Location(file, 9, 15, 9, 30)
        modules = [
            ModuleFact(path="", type="Net", qualname="model.Net"),
            ModuleFact(
                path="norm", type="LayerNorm", qualname="LayerNorm", base="LayerNorm", role="norm",
                leaf=True, calls=1, origin=Location(file, 7, 21, 7, 36),
            ),
            *(
                ModuleFact(
                    path=f"body.{i}", type="Linear", qualname="Linear", base="Linear", role="linear",
                    leaf=True, calls=1, origin=place, config={"features": 8 + i},
                )
                for i in range(3)
            ),
        ]  # fmt: skip
        if bomb:
            modules.append(ModuleFact(path="bomb", type="Bomb", qualname="Bomb"))
        tensor = (TensorFact((2, 8)),)
        nodes = [Node(index=0, name="x", op="placeholder", role="input", kind="input", outputs=tensor)]
        for number, path in enumerate(["norm", "body.0", "body.1", "body.2"], start=1):
            nodes.append(
                Node(
                    index=number, name=path.replace(".", "_"), op="call_module", module=path, outputs=tensor,
                    inputs=(number - 1,), role="norm" if path == "norm" else "linear",
                    kind="layer_norm" if path == "norm" else "linear",
                )
            )  # fmt: skip
        known: dict[str, object] = {"nodes": tuple(nodes), "modules": tuple(modules), "recorded": "meta"}
        return Facts(target=target, **(known | fields))  # type: ignore[arg-type]

    return make
