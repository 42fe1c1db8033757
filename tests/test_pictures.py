"""The pictures of what norms average over: drawn again they are the same, and torch's layers agree."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from normdoctor import layers

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "docs" / "_static"


def generator():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "learn" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pictures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pictures = generator()
SAMPLES, CHANNELS, POSITIONS = pictures.SHAPE


def features_last(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Apply a layer of (N, tokens, features) to (N, features, tokens)."""
    return lambda x: layer(x.transpose(1, 2)).transpose(1, 2)


def weight_norm(v: Tensor) -> Tensor:
    """The weight that torch makes of `v`, the lengths held fixed."""
    conv = parametrizations.weight_norm(nn.Conv1d(CHANNELS, SAMPLES, POSITIONS, bias=False).double())
    with torch.no_grad():
        conv.parametrizations.weight.original0.fill_(1.5)
        conv.parametrizations.weight.original1.copy_(v)
        return conv.weight.clone()


#: By name: what computes the outputs of the cells, and the scales, of which some have none.
LAYERS = {
    "batch": nn.BatchNorm1d(CHANNELS),
    "layer": nn.LayerNorm(CHANNELS),
    "layer-2d": layers.LayerNorm2d(CHANNELS),
    "instance": nn.InstanceNorm1d(CHANNELS, affine=True),
    "group": nn.GroupNorm(2, CHANNELS),
    "group-one": nn.GroupNorm(1, CHANNELS),
    "rms": nn.RMSNorm(CHANNELS),
    "local-response": nn.LocalResponseNorm(3, alpha=1.0),
    "weight": weight_norm,
    "weight-standardization": layers.weight_standardization(
        nn.Conv1d(CHANNELS, SAMPLES, POSITIONS)
    ).parametrizations.weight[0],
}


def compute(norm) -> Callable[[Tensor], Tensor]:
    layer = LAYERS[norm.name]
    layer = layer.double() if isinstance(layer, nn.Module) else layer
    if norm.name == "layer-2d":
        return lambda x: layer(x.unsqueeze(-1)).squeeze(-1)
    return features_last(layer) if norm.name in ("layer", "rms") else layer


def test_every_norm_has_a_layer():
    assert sorted(LAYERS) == sorted(norm.name for norm in pictures.NORMS)


@pytest.mark.parametrize("norm", pictures.NORMS, ids=lambda norm: norm.name)
def test_the_filled_cells_are_those_that_count(norm):
    """A cell counts for the framed one when the output there changes with it."""
    torch.manual_seed(0)
    x = torch.randn(pictures.SHAPE, dtype=torch.float64)
    function, marked = compute(norm), pictures.MARKED
    before = function(x)[marked].item()
    counts = set()
    for cell in pictures.cells():
        changed = x.clone()
        changed[cell] += 0.5
        if abs(function(changed)[marked].item() - before) > 1e-9:
            counts.add(cell)
    assert norm.averaged() == counts


@pytest.mark.parametrize(
    "norm", [n for n in pictures.NORMS if n.parameters is not None], ids=lambda n: n.name
)
def test_the_dotted_cells_share_the_scale(norm):
    """Of the scale that moves the framed cell, exactly the dotted cells are moved."""
    torch.manual_seed(0)
    x = torch.randn(pictures.SHAPE, dtype=torch.float64)
    if norm.name == "weight":
        conv = parametrizations.weight_norm(nn.Conv1d(CHANNELS, SAMPLES, POSITIONS, bias=False).double())
        scales, outputs = conv.parametrizations.weight.original0, lambda: conv.weight.detach().clone()
    else:
        layer, function = LAYERS[norm.name], compute(norm)
        scales, outputs = layer.weight, lambda: function(x).detach()
    before = outputs()
    index = pictures.MARKED[norm.parameters]
    with torch.no_grad():
        scales[index] *= 2
    moved = (outputs() - before).abs() > 1e-9
    with torch.no_grad():
        scales[index] /= 2
    assert norm.sharing() == {tuple(cell) for cell in moved.nonzero().tolist()}


@pytest.mark.parametrize(("name", "content"), sorted(pictures.pictures().items()))
def test_drawn_again_a_picture_is_the_same(name, content):
    assert (STATIC / name).read_text(encoding="utf-8") == content, "run python docs/learn/pictures.py"


def test_no_picture_is_left_over():
    on_disk = {file.name for file in STATIC.glob("axes-*.svg")}
    assert on_disk == {name for name in pictures.pictures() if name.startswith("axes-")}


@pytest.mark.parametrize("norm", pictures.NORMS, ids=lambda norm: norm.name)
def test_a_picture_shows_its_cells_and_can_be_read_aloud(norm):
    drawn = ElementTree.fromstring(pictures.draw(norm))
    space = {"s": "http://www.w3.org/2000/svg"}
    legend = 1
    assert len(drawn.findall(".//s:rect[@class='averaged']", space)) == len(norm.averaged()) + legend
    dots = len(norm.sharing()) + legend if norm.parameters is not None else 0
    assert len(drawn.findall(".//s:circle[@class='share']", space)) == dots
    assert drawn.findtext("s:title", namespaces=space) == norm.title
    assert drawn.findtext("s:desc", namespaces=space) == norm.alt()


def test_pages_say_what_their_pictures_show():
    known = {f"axes-{norm.name}.svg": norm.alt() for norm in pictures.NORMS}
    known["how-it-works.svg"] = pictures.HOW_IT_WORKS
    shown = set()
    for file in (ROOT / "docs").rglob("*.md"):
        for alt, name in re.findall(r"!\[([^\]]*)\]\([^)]*_static/([\w-]+\.svg)\)", file.read_text("utf-8")):
            if name in known:
                assert alt == known[name], f"{file.name}: {name}"
                shown.add(name)
    assert {name for name in known if name.startswith("axes-")} <= shown
