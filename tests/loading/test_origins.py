from __future__ import annotations

import copy
import gc
import importlib.util
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.loading.construction import origins_for
from normdoctor.loading.origins import Origin, Origins, record_origins

SOURCE = """
import copy
import torch
from torch import nn


class MyRMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.weight


class Fancy(nn.BatchNorm1d):
    def __init__(self, dim):
        super().__init__(dim, eps=1e-3)


class Net(nn.Module):
    def __init__(self, c=8, norm_layer=nn.LayerNorm):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(c, c),
            nn.BatchNorm1d(c),
            nn.ReLU(),
        )
        self.norm = norm_layer(8)
        self.own = MyRMSNorm(8)
        self.fancy = Fancy(8)
        self.add_module("extra", nn.BatchNorm1d(8))
        self.many = nn.ModuleList([nn.Linear(c, c) for _ in range(3)])
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.clones = nn.ModuleList(copy.deepcopy(Block(8)) for _ in range(2))
        self.é, self.named = 1, nn.ModuleDict({"ü": nn.Tanh(), "b": nn.GELU()})

    def forward(self, x):
        return x


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln = nn.LayerNorm(c)

    def forward(self, x):
        return self.ln(x)


def make():
    return Net()
"""

EXPECTED = {
    "": "Net()",
    "body.0": "nn.Linear(c, c)",
    "body.1": "nn.BatchNorm1d(c)",
    "body.2": "nn.ReLU()",
    "norm": "norm_layer(8)",
    "own": "MyRMSNorm(8)",
    "fancy": "Fancy(8)",
    "extra": "nn.BatchNorm1d(8)",
    "many.2": "nn.Linear(c, c)",
    "encoder": "nn.TransformerEncoder(layer, num_layers=2)",
    "encoder.layers.0": "nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)",
    "encoder.layers.1.norm2": "nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)",
    "clones.0": "Block(8)",
    "clones.1.ln": "nn.LayerNorm(c)",
    "named.ü": "nn.Tanh()",
    "named.b": "nn.GELU()",
}

#: What the source alone says: names that the class does not spell out take their ancestor's.
FROM_SOURCE = EXPECTED | {
    "": "class Net(nn.Module):",
    "encoder.layers.0": "nn.TransformerEncoder(layer, num_layers=2)",
    "encoder.layers.1.norm2": "nn.TransformerEncoder(layer, num_layers=2)",
    "clones.0": "copy.deepcopy(Block(8))",
    "named.ü": "class Net(nn.Module):",
    "named.b": "class Net(nn.Module):",
}


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Any]:
    def load(text: str = SOURCE) -> Any:
        path = tmp_path / "built.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("built", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def text_of(origin: Origin) -> str:
    place = origin.location
    lines = Path(place.file).read_text(encoding="utf-8").splitlines()[place.line - 1 : place.end_line]
    if len(lines) == 1:
        return lines[0][place.column - 1 : place.end_column - 1]
    return "\n".join([lines[0][place.column - 1 :], *lines[1:-1], lines[-1][: place.end_column - 1]])


def test_the_exact_expression_is_recorded(imported: Callable[..., Any]) -> None:
    module = imported()
    with record_origins() as origins:
        model = module.make()
    found = origins_for(model, origins)
    assert set(found) == {path for path, _ in model.named_modules()}
    assert {path: text_of(found[path]) for path in EXPECTED} == EXPECTED
    assert text_of(found["body"]).startswith("nn.Sequential(\n            nn.Linear")
    assert text_of(found["body"]).endswith("\n        )")


def test_the_frames_outside_are_kept(imported: Callable[..., Any]) -> None:
    module = imported()
    with record_origins() as origins:
        model = module.make()
    origin = origins.of(model.own)
    assert origin is not None
    assert text_of(Origin(origin.via[0])) == "Net()"
    assert text_of(Origin(origin.via[1])) == "module.make()"
    assert len(origin.via) <= 4
    block = origins.of(model.clones[0].ln)
    assert block is not None
    assert text_of(Origin(block.via[0])) == "Block(8)"


def test_a_live_model_is_read_off_its_source(imported: Callable[..., Any]) -> None:
    model = imported().make()
    found = origins_for(model)
    assert {path: text_of(found[path]) for path in FROM_SOURCE} == FROM_SOURCE


def test_only_unique_assignments_are_believed(imported: Callable[..., Any]) -> None:
    module = imported(
        """
        from torch import nn
        class Base(nn.Module):
            def __init__(self):
                super().__init__()
                self.low = nn.Linear(2, 2)
        class Net(Base):
            def __init__(self, flag=True):
                super().__init__()
                if flag:
                    self.two = nn.Linear(2, 2)
                else:
                    self.two = nn.Linear(2, 3)
                parts = [nn.Linear(2, 2), nn.ReLU()]
                self.starred = nn.Sequential(*parts)
                self.pairs = nn.Sequential(OrderedDict([("a", nn.ReLU()), ("b", nn.Tanh())]))
            def forward(self, x):
                return x
        from collections import OrderedDict
        """
    )
    found = {path: text_of(origin) for path, origin in origins_for(module.Net()).items()}
    assert found["two"] == "class Net(Base):"
    assert found["low"] == "nn.Linear(2, 2)"
    assert found["starred.1"] == "nn.Sequential(*parts)"
    assert found["pairs.b"] == "nn.Tanh()"


def test_a_model_without_source_has_no_origin() -> None:
    namespace: dict[str, Any] = {"nn": nn}
    lines = ["class Net(nn.Module):", " def __init__(self):", "  super().__init__()", "  self.a = nn.ReLU()"]
    exec("\n".join(lines), namespace)
    assert origins_for(namespace["Net"]()) == {}
    assert origins_for(nn.Sequential(nn.ReLU())) == {}


def test_wrappers_of_the_constructor_are_looked_through(imported: Callable[..., Any]) -> None:
    module = imported(
        """
        import functools
        from torch import nn
        def logged(init):
            @functools.wraps(init)
            def wrapper(*args, **kwargs):
                return init(*args, **kwargs)
            return wrapper
        class Meta(type):
            def __call__(cls, *args, **kwargs):
                return super().__call__(*args, **kwargs)
        class Net(nn.Module, metaclass=Meta):
            @logged
            def __init__(self):
                super().__init__()
            @classmethod
            def small(cls):
                return cls()
        def make():
            return [Net(), Net.small()]
        """
    )
    with record_origins() as origins:
        first, second = module.make()
    assert [text_of(origins_for(model, origins)[""]) for model in (first, second)] == ["Net()", "cls()"]


def test_blocks_nest_and_are_taken_away_again() -> None:
    before = (nn.Module.__init__, nn.Module.__dict__.get("__reduce_ex__"))
    with record_origins() as outer:
        first = nn.ReLU()
        with record_origins() as inner:
            second = nn.Tanh()
        third = copy.deepcopy(first)
    fourth = nn.ReLU()
    assert [bool(outer.of(module)) for module in (first, second, third, fourth)] == [True, True, True, False]
    assert [bool(inner.of(module)) for module in (first, second, third)] == [False, True, False]
    assert (nn.Module.__init__, nn.Module.__dict__.get("__reduce_ex__")) == before
    with pytest.raises(ValueError, match="no"), record_origins():
        raise ValueError("no")
    assert (nn.Module.__init__, nn.Module.__dict__.get("__reduce_ex__")) == before


def test_other_threads_are_not_recorded_and_blocks_may_overlap() -> None:
    before = nn.Module.__init__
    entered, leave = threading.Event(), threading.Event()
    made: list[nn.Module] = []
    theirs: list[Origins] = []

    def work() -> None:
        with record_origins() as origins:
            made.append(nn.ReLU())
            theirs.append(origins)
            entered.set()
            leave.wait(10)
            made.append(nn.ReLU())

    thread = threading.Thread(target=work)
    with record_origins() as ours:
        thread.start()
        assert entered.wait(10)
        mine = nn.ReLU()
    leave.set()
    thread.join()
    assert ours.of(mine) is not None
    assert [ours.of(module) for module in made] == [None, None]
    assert all(theirs[0].of(module) is not None for module in made)
    assert nn.Module.__init__ is before


def test_no_module_is_kept_alive_and_identity_counts() -> None:
    with record_origins() as origins:
        module = nn.Linear(2, 2)
        assert len(origins) == 1
        del module
        gc.collect()
        assert len(origins) == 0

    class Same(nn.Module):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    with record_origins() as origins:
        same = Same()
    assert origins.of(same) is not None


def test_pickling_is_untouched(tmp_path: Path) -> None:
    with record_origins():
        model = nn.Sequential(nn.Linear(2, 2))
        torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(again[0].weight, model[0].weight)


def test_two_files_of_one_text_keep_their_names(tmp_path):
    text = "from torch import nn\n\nmodel = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))\n"
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(text, encoding="utf-8")
        report = normdoctor.check(str(tmp_path / name / "model.py"), select="ND101")
        found += [finding.location.file for finding in report.findings]
    assert found == [str(tmp_path / name / "model.py") for name in ("first", "second")]
