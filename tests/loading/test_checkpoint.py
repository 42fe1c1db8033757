"""Weights of a checkpoint: what is read, what is refused, and that the model gets its own back."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from normdoctor import check
from normdoctor.errors import UsageError
from normdoctor.loading.checkpoint import fitted, load_into, loaded, read_checkpoint

X = torch.zeros(2, 4)


def net(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.net.{key}": value for key, value in state.items()}},
    ],
)
def test_what_training_scripts_save(tmp_path: Path, wrap) -> None:
    source, model = net(), net()
    load_into(model, saved(tmp_path / "w.pt", wrap(source.state_dict())))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))


def test_the_old_format_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=False)
    assert len(read_checkpoint(path)) == 9


def test_afterwards_the_model_is_as_it_was(tmp_path: Path) -> None:
    model = net()
    other = {key: torch.ones_like(value) for key, value in model.state_dict().items()}
    path = saved(tmp_path / "w.pt", other)
    before = {key: (value.clone(), value.data_ptr()) for key, value in model.state_dict().items()}
    with loaded(model, path) as notes:
        assert all(torch.equal(value, other[key]) for key, value in model.state_dict().items())
        assert notes == [f"weights loaded from {path}"]
    report = check(model, inputs=X, weights=path)
    assert any("weights loaded" in note for note in report.targets[0].notes)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key][0])
        assert value.data_ptr() == before[key][1]


def test_the_weights_of_the_file_are_judged(tmp_path: Path) -> None:
    model = net()
    broken = model.state_dict() | {"0.weight": torch.full((8, 4), float("nan"))}
    path = saved(tmp_path / "w.pt", broken)
    assert "ND405" not in {one.code for one in check(model, inputs=X).findings}
    assert "ND405" in {one.code for one in check(model, inputs=X, weights=str(path)).findings}


def test_keys_that_do_not_match_are_noted(tmp_path: Path) -> None:
    state = net().state_dict()
    del state["2.bias"]
    path = saved(tmp_path / "w.pt", {**state, "extra": torch.zeros(1)})
    notes = load_into(net(), path)
    assert notes[1:] == ["1 keys are missing in w.pt: 2.bias", "1 keys are unexpected in w.pt: extra"]


class Unpicklable:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: net(), "was refused: it asks for `torch.nn.modules.container.Sequential`"),
        (lambda: {"state_dict": net().state_dict(), "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (lambda: net(16).state_dict(), r"7 shapes differ: 0.weight: \(16, 4\) in the file"),
        (lambda: {"epoch": 3}, "a dict without tensors"),
        (lambda: [1, 2], "an object of type list"),
        (lambda: {"a": torch.zeros(1)}, "none of its 1 keys"),
    ],
)
def test_what_is_refused(tmp_path: Path, value, message) -> None:
    path = saved(tmp_path / "w.pt", value())
    model = net()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(UsageError, match=message):
        check(model, inputs=X, weights=path)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    text = tmp_path / "notes.pt"
    text.write_text("no checkpoint")
    for path, message in (
        (text, "cannot be read"),
        (tmp_path / "none.pt", "no such file"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(UsageError, match=message):
            read_checkpoint(path)
    with pytest.raises(UsageError, match="weights is an int"):
        check(net(), inputs=X, weights=3)


def test_safetensors_are_read_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    try:
        from safetensors.torch import save_file
    except ImportError:
        path.write_bytes(b"")
        with pytest.raises(UsageError, match="needs the library safetensors"):
            read_checkpoint(path)
    else:
        save_file(net().state_dict(), str(path))
        assert len(read_checkpoint(path)) == 9
        path.write_bytes(b"no header")
        with pytest.raises(UsageError, match="no safetensors file"):
            read_checkpoint(path)


def test_a_model_on_meta_takes_the_values(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", net().state_dict())
    with torch.device("meta"):
        model = net()
    with loaded(model, path):
        assert model[0].weight.device.type == "cpu"
    assert model[0].weight.device.type == "meta"


def test_the_prefix_that_fits_most_keys_is_taken_off() -> None:
    known = {"a.weight": 0, "b.weight": 0}
    state = {
        "model.a.weight": torch.zeros(1),
        "model.b.weight": torch.zeros(1),
        "ema.a.weight": torch.zeros(1),
    }
    found, prefix = fitted(state, known)
    assert (sorted(found), prefix) == (["a.weight", "b.weight"], "model.")
