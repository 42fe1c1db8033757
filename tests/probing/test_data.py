"""`data=`, `batches=`, `batch_size=`, `batch_to_inputs=`: every form of batches, and every mistake."""

from __future__ import annotations

import io
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import normdoctor
from normdoctor.errors import NormDoctorError, TraceError, UsageError
from normdoctor.output.progress import Progress
from normdoctor.probing.data import Feed
from normdoctor.probing.probe import probe

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


def dead(n: int = 4) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(n, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].bias[:10] = -50.0
    return model


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = dead()

    def forward(self, x, mask, scale=1.0):
        return self.net(x * mask) * scale


class Whole(nn.Module):
    """Takes its batch apart itself."""

    def __init__(self):
        super().__init__()
        self.net = dead()

    def forward(self, batch):
        return self.net(batch["x"])


class Images(nn.Module):
    """A detector: lists of images."""

    def __init__(self):
        super().__init__()
        self.net = dead()

    def forward(self, images, targets=None):
        assert isinstance(images, list)
        assert targets is None
        return self.net(torch.stack(images))


class Anything(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = dead()

    def forward(self, x, **kwargs):
        assert set(kwargs) <= {"y"}
        return self.net(x)


Pair = namedtuple("Pair", "x y")


class Stream(IterableDataset):
    def __iter__(self):
        yield from (X, X)


def generated():
    yield X
    yield X


MASK = torch.ones(64, 4)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (dead, [X, X]),
        (dead, (X, X)),
        (dead, iter([X, X])),
        (dead, generated),
        (dead, lambda: [(X, 1)] * 2),
        (dead, DataLoader(TensorDataset(X, X), batch_size=32)),
        (dead, Stream()),
        (dead, [Pair(X, X)] * 2),
        (dead, [{"input": X, "label": X}] * 2),
        (Two, [(X, MASK)] * 2),
        (Two, [(X, MASK, X)] * 2),
        (Two, [[X, MASK, X]] * 2),
        (Two, [((X, MASK), X)] * 2),
        (Two, [{"x": X, "mask": MASK, "label": X}] * 2),
        (Two, [({"x": X, "mask": MASK}, X)] * 2),
        (Whole, [{"x": X, "y": X}] * 2),
        (Images, [(list(X), [1] * 64)] * 2),
        (Anything, [{"x": X, "y": X}] * 2),
    ],
)
def test_batches_as_the_model_takes_them(model, data):
    found = probe(model(), Feed(data))
    (site,) = [figures for figures in found["units"].values() if figures["role"] == "activation"]
    assert found["run"] == {"source": "data", "batches": 2}
    assert site["active"][:10] == [0.0] * 10
    assert site["observations"] in (64, 128)


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (dead, [], "found none"),
        (dead, iter(()), "found none"),
        (dead, TensorDataset(X), "DataLoader"),
        (dead, "data.txt:loader", r"data\.txt"),
        (dead, 3, "found the data to be an int"),
        (dead, nn.Linear(1, 1), "found the data to be a Linear"),
        (dead, lambda: 3, "what the data returned to be an int"),
        (dead, lambda: 1 / 0, "could not be made: ZeroDivisionError"),
        (dead, lambda path: [X], "could not be made: TypeError"),
        (dead, ["text"], "batch 0 of the data is a str"),
        (dead, [X.numpy()], "batch 0 of the data is a ndarray"),
        (dead, [(np.zeros(3), 1)], "a ndarray"),
        (dead, [()], "batch 0 of the data is empty"),
        (dead, [None], "batch 0"),
        (Two, [X], "forward takes `x`, `mask`"),
        (Two, [(X,)], "forward takes `x`, `mask`, but batch 0 of the data holds 1 value"),
        (Two, [{"x": X}], "forward takes `x`, `mask`, but batch 0 of the data holds `x`"),
        (dead, (x for x in [X, 1 / 1]), "batch 1 of the data is a float"),
    ],
)
def test_wrong_data(model, data, said):
    with pytest.raises(UsageError, match=said):
        normdoctor.check(model(), X, data=data)


def test_data_that_break_while_they_are_read():
    def broken():
        yield X
        raise OSError("disk full")

    with pytest.raises(UsageError, match="the data could not be read after 1 batches: OSError: disk full"):
        normdoctor.check(dead(), X, data=broken)


def test_wrong_shapes_say_what_was_given():
    with pytest.raises(TraceError, match="RuntimeError on batch 0 of the data") as caught:
        normdoctor.check(dead(), X, data=[(torch.ones(2, 5), torch.ones(2))])
    assert "float32 (2, 5)" in caught.value.hint


def test_batch_to_inputs_decides():
    data = [{"image": X, "mask": MASK}] * 2
    for made in (lambda b: (b["image"], b["mask"]), lambda b: {"x": b["image"], "mask": b["mask"]}):
        report = normdoctor.check(Two(), (X, MASK), data=data, batch_to_inputs=made, select="ND601")
        assert report.ok
        assert "measured over 2 batches of the data" in report.targets[0].notes
    report = normdoctor.check(dead(), X, data=[("a", X)] * 20, batch_to_inputs=lambda b: b[1], select="ND601")
    assert [finding.code for finding in report.findings] == ["ND601"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_to_inputs": lambda b: b["no"]}, "batch_to_inputs raised KeyError"),
        ({"batch_to_inputs": lambda b: 3}, "batch_to_inputs returned an int"),
        ({"batch_to_inputs": 3}, "batch_to_inputs is an int"),
        ({"data": None, "batch_to_inputs": lambda b: b}, "without data"),
        ({"data": "synthetic", "batch_to_inputs": lambda b: b}, "nothing to do on synthetic"),
        ({"batches": 0}, "expected a number of batches of at least 1, found 0"),
        ({"batches": "3"}, "expected a number of batches of at least 1, found '3'"),
        ({"batch_size": -1}, "expected a batch size of at least 1, found -1"),
        ({"device": "meta"}, "the meta device holds no values"),
        ({"device": "cuda" if not torch.cuda.is_available() else "xpu:77"}, "cannot be used here"),
    ],
)
def test_misuse(given, said):
    with pytest.raises(NormDoctorError, match=said):
        normdoctor.check(dead(), X, **{"data": [{"x": X}], **given})


def test_a_bound_on_batches_is_said():
    report = normdoctor.check(dead(), X, data=[X] * 40, select="ND601")
    assert "measured over the first 32 batches of the data (--batches or batches= takes more)" in (
        report.targets[0].notes
    )
    report = normdoctor.check(dead(), X, data=[X] * 40, batches=40, select="ND601")
    assert "measured over 40 batches of the data" in report.targets[0].notes
    assert report.findings[0].evidence["batches"] == 40


def test_no_more_is_read_than_asked_for():
    read = []

    def endless():
        while True:
            read.append(1)
            yield X

    normdoctor.check(dead(), X, data=endless, batches=3, select="ND601")
    assert len(read) == 3


def test_synthetic_batches_are_labelled_and_warn_at_most():
    model = dead()
    with torch.no_grad():
        model[0].bias[:15] = -50.0
    real = normdoctor.check(model, X, data=[X] * 32, select="ND601")
    assert real.findings[0].severity == "error"
    made = normdoctor.check(model, X, data="synthetic", select="ND601")
    (finding,) = made.findings
    assert (finding.severity, finding.evidence["source"]) == ("warning", "synthetic")
    assert "synthetic" in finding.message
    (note,) = [note for note in made.targets[0].notes if note.startswith("measured")]
    assert "synthetic" in note
    assert "float32 (64, 4)" in note
    again = normdoctor.check(model, X, data="synthetic", select="ND601")
    assert again.findings == made.findings


def test_a_level_does_not_lift_the_cap_of_synthetic_data():
    from normdoctor.config import Settings
    from normdoctor.facts import Facts
    from normdoctor.probing import measure
    from normdoctor.running import check_facts

    model = dead()
    facts = measure(model, Feed([X] * 20, source="synthetic"), Facts(target="net"))
    report = check_facts([facts], Settings(select=("ND601",), levels={"ND601": "error"}))
    assert [finding.severity for finding in report.findings] == ["warning"]


def test_synthetic_batches_have_the_stated_size():
    seen = []

    class Sized(nn.Module):
        def forward(self, ids, mask, x):
            seen.append((ids.shape, ids.max().item(), mask.dtype, x.shape, len(x.unique()) > 10))
            return nn.functional.relu(x) * mask.unsqueeze(-1)

    inputs = {
        "ids": torch.randint(0, 50, (2, 7)),
        "mask": torch.ones(2, 7, dtype=torch.bool),
        "x": torch.zeros(2, 7, 3),
    }
    normdoctor.check(Sized(), inputs, data="synthetic", batch_size=5, batches=2, select="ND601")
    assert len(seen) >= 2
    for ids, most, dtype, x, varied in seen[-2:]:
        assert (ids, dtype, x) == ((5, 7), torch.bool, (5, 7, 3))
        assert most < 50
        assert varied


def test_a_stated_batch_size_reaches_the_measurements(tmp_path):
    found = probe(dead(), Feed([X], batch_size=2))
    assert found["run"]["batch_size"] == 2


def test_wrong_weights():
    with torch.device("meta"):
        model = dead()
    with pytest.raises(UsageError, match=r"`0.weight` is on the meta device"):
        normdoctor.check(model, torch.empty(2, 4, device="meta"), data=[X])


def test_eval_and_train_mode_stay():
    modes = []

    class Asked(nn.Module):
        def forward(self, x):
            modes.append(self.training)
            return torch.relu(x)

    for training in (True, False):
        model = Asked().train(training)
        probe(model, [X])
        assert model.training is training
    assert modes == [True, False]


def test_the_model_moves_only_for_the_while():
    model = dead()
    weight, memory = model[0].weight, model[0].weight.data_ptr()
    values = weight.detach().clone()
    from normdoctor.probing.sandbox import sandbox

    with sandbox(model):
        model.to("meta")
        assert model[0].weight.is_meta
    assert model[0].weight is weight
    assert weight.data_ptr() == memory
    assert torch.equal(weight, values)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_waits_a_second_and_goes_away(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("normdoctor.output.progress.time.monotonic", lambda: now[0])
    stream = Terminal()
    progress = Progress("measuring net", stream)
    progress(1, 4)
    assert stream.getvalue() == ""
    now[0] = 1.5
    progress(2, 4)
    assert "measuring net: [############............] 2 of 4 batches" in stream.getvalue()
    now[0] = 3.0
    progress(3, None)
    assert stream.getvalue().endswith("batches") or "3 batches" in stream.getvalue()
    progress.close()
    assert stream.getvalue().endswith("\r")


def test_no_progress_without_a_terminal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("normdoctor.output.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress("measuring net", stream)
    now[0] = 5.0
    progress(2, 4)
    progress.close()
    assert stream.getvalue() == ""


class Odd(nn.Module):
    """Takes what nobody would guess: a number of features that its layers do not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, scene):
        return self.head(scene["pixels"].reshape(len(scene["pixels"]), 8, -1).mean(2))


def test_the_first_batch_is_what_the_forward_is_recorded_with():
    model = Odd()
    state = torch.get_rng_state()
    report = normdoctor.check(model, data=({"scene": {"pixels": torch.randn(4, 8, 3)}} for _ in range(3)))
    assert not report.problems
    assert not [note for target in report.targets for note in target.notes if "inferred" in note]
    assert any("measured over 3 batches" in note for target in report.targets for note in target.notes)
    assert torch.equal(state, torch.get_rng_state())


def test_given_inputs_come_before_the_first_batch():
    seen = []

    class Net(nn.Linear):
        def forward(self, input):
            seen.append(tuple(input.shape))
            return super().forward(input)

    normdoctor.check(Net(3, 2), inputs=torch.randn(5, 3), data=[torch.randn(4, 3)])
    assert seen[0] == (5, 3)
    seen.clear()
    normdoctor.check(Net(3, 2), data=[torch.randn(4, 3)])
    assert seen[0] == (4, 3)


def test_a_loader_of_a_file_shuffles_alike_in_every_check(tmp_path):
    """Two checks of the same files write the same figures, whatever the state of the random generator."""
    file = tmp_path / "shuffled.py"
    file.write_text(
        "import torch\n"
        "data = torch.arange(64.0).reshape(64, 1).expand(64, 4)\n"
        "loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)\n"
    )
    model, figures = nn.Sequential(nn.BatchNorm1d(4)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        report = normdoctor.check(model, data=f"{file}:loader", batches=4, select="ND701")
        figures.append([row["per_sample"] for row in report.batch_sizes()])
    assert figures[0] == figures[1] != []


def test_data_of_nothing_but_nan_are_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(UsageError, match="every batch of the data holds NaN"):
        normdoctor.check(model, data=[torch.full((4, 3), torch.nan)] * 2)
    report = normdoctor.check(model, data=[torch.full((4, 3), torch.nan), torch.randn(4, 3)])
    assert any("1 of the batches hold NaN" in note for note in report.targets[0].notes)
