"""The inventory: every norm, activation and layer with weights, in the order of execution."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from normdoctor.census import count_norms, functional_norms
from normdoctor.facts import Facts, Location, ModuleFact
from normdoctor.output.inventory import inventory, to_json, to_text
from normdoctor.output.style import Style
from normdoctor.testing import FactsBuilder

GOLDEN = Path(__file__).parent / "golden" / "inventory.txt"
ALL = frozenset({"norm", "activation", "weight"})


def facts() -> Facts:
    build = FactsBuilder()
    x = build.input(8, 3, 32, 32)
    conv = build.layer(
        "conv", "Conv2d", x, shape=(8, 16, 16, 16), weight=(16, 3, 3, 3), stride=[2, 2], padding=[1, 1]
    )
    norm = build.layer(
        "bn", "BatchNorm2d", conv, shape=(8, 16, 16, 16), weight=(16,), bias=(16,), eps=1e-5, momentum=0.1
    )
    drop = build.layer("drop", "Dropout", norm, shape=(8, 16, 16, 16), p=0)
    relu = build.op("relu", drop, shape=(8, 16, 16, 16), location=Location("model.py", 30))
    build.module("own", "MyNorm", role="norm", parameters=("own.gain",), calls=1, config={"eps": 1e-6})
    build.parameter("own", "gain", 16)
    mean = build.op("mean", relu, shape=(8, 1, 16, 16), scope="own")
    own = build.op("sub", relu, mean, shape=(8, 16, 16, 16), scope="own", parameters=("own.gain",))
    pooled = build.op("mean", own, shape=(8, 16))
    head = build.layer("head", "Linear", pooled, shape=(8, 10), weight=(10, 16), bias=(10,))
    again = build.layer("head2", "Linear", head, shape=(8, 10), weight=(10, 10))
    again = build.layer("head2", "Linear", again, shape=(8, 10), weight=(10, 10))
    build.module("spare", "LayerNorm", base="LayerNorm", role="norm", leaf=True, parameters=("spare.weight",))
    build.parameter("spare", "weight", 16, trainable=False)
    return build.facts(again)


def test_rows():
    rows = {row.layer or "relu": row for row in inventory(facts()).rows}
    assert list(rows) == ["conv", "bn", "relu", "own", "head", "head2", "spare"]
    assert [rows[name].kind for name in rows] == [
        "weight",
        "norm",
        "activation",
        "norm",
        "weight",
        "weight",
        "norm",
    ]
    assert (rows["bn"].before, rows["bn"].after) == ("Conv2d", "relu"), "Dropout(p=0) is looked through"
    assert (rows["own"].before, rows["own"].after) == ("relu", "mean"), "a norm of the user's own is one row"
    assert rows["own"].parameters == 16
    assert rows["head2"].calls == 2
    assert rows["spare"].calls == 0
    assert rows["conv"].output == (8, 16, 16, 16)
    assert rows["bn"].settings == {"eps": 1e-5, "momentum": 0.1}


def test_text():
    assert to_text(inventory(facts()), ALL, Style(width=120)) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_text_fits(width):
    lines = to_text(inventory(facts()), ALL, Style(width=width)).splitlines()
    assert max(map(len, lines)) <= width


def test_kinds():
    found = inventory(facts())
    models = json.loads(to_json([found], {"activation"}))["models"]
    assert [row["what"] for row in models[0]["rows"]] == ["relu"]
    text = to_text(found, {"weight"}, Style(width=120))
    assert "norms" not in text
    assert "3 layers with weights" in text


def test_nothing_recorded():
    bare = msgspec.structs.replace(facts(), nodes=(), inputs=(), recorded="", notes=("forward raised",))
    text = to_text(inventory(bare), ALL, Style(width=120))
    assert "note: forward raised" in text
    assert "note: the forward could not be recorded" in text
    assert "never called" not in text
    assert "3 norms: 1 BatchNorm2d, 1 LayerNorm, 1 MyNorm" in text


def test_functional_layers_stand_at_their_module():
    build = FactsBuilder()
    x = build.input(2, 8)
    build.module("block", "Block", parameters=("block.weight", "block.scale"), calls=1)
    build.parameter("block", "weight", 4, 8)
    build.parameter("block", "scale", 4)
    linear = build.op("linear", x, shape=(2, 4), scope="block", parameters=("block.weight",))
    norm = build.op("layer_norm", linear, shape=(2, 4), scope="block", parameters=("block.scale",))
    (row,) = inventory(build.facts(norm)).rows
    assert (row.layer, row.what, row.parameters, row.calls) == ("block", "Block", 36, 1)


def test_census():
    assert count_norms(facts()) == {"BatchNorm2d": 1, "LayerNorm": 1, "MyNorm": 1}
    build = FactsBuilder()
    x = build.input(2, 8)
    for _ in range(2):
        x = build.op("layer_norm", x, shape=(2, 8), scope="block", location=Location("m.py", 3))
    x = build.op("layer_norm", x, shape=(2, 8), scope="head", location=Location("m.py", 9))
    known = build.facts(x)
    assert count_norms(known) == {"F.layer_norm": 2}
    assert len(functional_norms(known)) == 2
    owner = ModuleFact(path="head", type="Own", qualname="Own", role="norm")
    inside = msgspec.structs.replace(known, modules=(*known.modules, owner))
    assert count_norms(inside) == {"F.layer_norm": 1, "Own": 1}


if __name__ == "__main__":
    GOLDEN.write_text(to_text(inventory(facts()), ALL, Style(width=120)), encoding="utf-8")
