from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from normdoctor.errors import TargetError, UsageError
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.spec import parse_spec
from normdoctor.loading.target import from_object


@dataclass
class ToyConfig:
    width: int = 4


class Toy(nn.Module):
    example_input_array = torch.zeros(3, 4)

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.width, config.width)
        self.forgotten = nn.Parameter(torch.empty(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(x)
        return result


class Dummy(nn.Module):
    default_cfg = {"input_size": (3, 32, 32)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_module_is_taken_as_it_is() -> None:
    model = nn.Linear(2, 2)
    target = from_object(model)
    assert target.model is model
    assert (target.name, target.notes, target.origins) == ("Linear", (), None)
    assert from_object(model, "mine").name == "mine"


def test_a_class_with_a_config_is_built_with_origins_and_fill() -> None:
    state = torch.get_rng_state()
    target = from_object(Toy)
    assert torch.equal(torch.get_rng_state(), state)
    assert target.notes == ("built as Toy(ToyConfig())",)
    assert target.origins is not None
    assert target.origins.of(target.model.fc) is not None
    assert target.model.forgotten.isnan().all()
    assert isinstance(target.inputs, ExampleInputs)
    assert target.inputs.source == "declared"
    assert target.inputs.args[0].shape == (3, 4)


def test_the_size_of_one_image_gets_a_batch() -> None:
    inputs = from_object(Dummy()).inputs
    assert inputs is not None
    assert inputs.args[0].shape == (2, 3, 32, 32)


def test_wrappers_are_looked_through() -> None:
    model = nn.Linear(2, 2)
    for wrapper in (nn.DataParallel(model), torch.compile(model), nn.DataParallel(torch.compile(model))):
        target = from_object(wrapper)
        assert target.model is model
        assert "looked through" in target.notes[0]


def test_what_others_traced() -> None:
    model = nn.Linear(2, 2)
    assert from_object(fx.symbolic_trace(model)).name == "Linear"
    exported = from_object(torch.export.export(model, (torch.ones(1, 2),)))
    assert exported.inputs is not None
    assert exported.inputs.args[0].shape == (1, 2)
    assert exported.model(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_module_is_marked() -> None:
    target = from_object(torch.jit.script(nn.Linear(2, 2)))
    assert target.scripted


def test_a_string_gives_one_model(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("from torch import nn\na = nn.Linear(2, 2)\nb = nn.Linear(2, 3)\n")
    assert from_object(f"{path}:b").model.out_features == 3
    with pytest.raises(TargetError, match="expected one model, found 2"):
        from_object(str(path))


def test_the_parts_of_a_target_string(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("")
    spec = parse_spec(f"{path}:pkg.build('a', depth=-1, sizes=[1, 2])")
    assert (spec.file, spec.parts, spec.called) == (path, ("pkg", "build"), True)
    assert (spec.args, spec.kwargs) == (("a",), {"depth": -1, "sizes": [1, 2]})
    assert spec.call == "('a', depth=-1, sizes=[1, 2])"
    for text, name, code in (
        ("::Net::ND101", "Net", "ND101"),
        ("::ND101", "", "ND101"),
        ("::Net", "Net", None),
    ):
        parsed = parse_spec(f"{path}{text}")
        assert (parsed.name, parsed.code) == (name, code)
    assert parse_spec(str(tmp_path)).directory == tmp_path
    assert parse_spec("pkg.mod:factory").module == "pkg.mod"
    with pytest.raises(UsageError, match="literal arguments"):
        parse_spec(f"{path}:build(print)")
