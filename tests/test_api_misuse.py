"""Wrong arguments of `check`, `convert` and `watch`: one NormDoctorError that says what was expected."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from normdoctor import check, convert, recalibrate, watch
from normdoctor.errors import NormDoctorError, TargetError, TraceError, UsageError

X = torch.zeros(2, 3, 8, 8)


class Unsound(nn.Module):
    def __init__(self) -> None:
        self.depth = 3


class Hostile(nn.Module):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def fails() -> nn.Module:
    raise ValueError("no such width")


def odd_part() -> nn.Module:
    model = net()
    model._modules["odd"] = 3  # type: ignore[assignment]
    return model


def nested(depth: int) -> nn.Module:
    model: nn.Module = nn.ReLU()
    for _ in range(depth):
        model = nn.Sequential(model)
    return model


def step(loss: Any) -> None:
    with watch(net()) as watched:
        watched.step(loss)


def entered_twice() -> None:
    with watch(net()) as watched, watched:
        pass


def converted(**arguments: Any) -> Any:
    return convert(net(), "batch->group", **arguments)


def wrong(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    return lambda: function(*arguments, **named)


#: What is called, the kind of error, words of its text.
TABLE: dict[str, tuple[Callable[[], Any], type[NormDoctorError], list[str]]] = {
    "a number": (wrong(check, 3), TargetError, ["expected an nn.Module", "found an int (3)"]),
    "a tensor": (wrong(check, X), TargetError, ["a tensor of shape (2, 3, 8, 8)"]),
    "a list": (wrong(check, [net()]), TargetError, ["expected an nn.Module", "found a list"]),
    "a state dict": (wrong(check, net().state_dict()), TargetError, ["a state dict has no forward"]),
    "a class": (wrong(check, nn.Linear), TargetError, ["missing `in_features`, `out_features`"]),
    "a factory that raises": (wrong(check, fails), TargetError, ["fails could not be built", "ValueError"]),
    "a factory that exits": (wrong(check, sys.exit), TargetError, ["could not be built: SystemExit"]),
    "a missing file": (wrong(check, "no/such.py"), TargetError, ["no such file"]),
    "no super().__init__()": (wrong(check, Unsound()), TargetError, ["does not call super().__init__()"]),
    "hostile attributes": (wrong(check, Hostile()), TraceError, ["its own code raised RuntimeError"]),
    "inputs: a number": (wrong(check, net(), 3), UsageError, ["`inputs` is a int", "torch.randn"]),
    "inputs: a set": (wrong(check, net(), {X}), UsageError, ["`inputs` is a set"]),
    "inputs: a module": (wrong(check, net(), net()), UsageError, ["`inputs` is a Sequential"]),
    "inputs: a text": (wrong(check, net(), "banana"), UsageError, ["banana", "SHAPE"]),
    "inputs: keys": (wrong(check, net(), {1: X}), UsageError, ["keys are no strings"]),
    "inputs: negative": (wrong(check, net(), (-1, 3)), UsageError, ["`inputs` is a shape", "(-1, 3)"]),
    "inputs: empty batch": (wrong(check, net(), (0, 3)), UsageError, ["a batch with something in it"]),
    "inputs: huge": (wrong(check, net(), (10**12, 3)), UsageError, ["expected at most"]),
    "select: unknown": (wrong(check, net(), X, select="ND999"), UsageError, ["unknown rule `ND999`"]),
    "select: a number": (wrong(check, net(), X, select=3), UsageError, ["select is an int (3)"]),
    "select: numbers": (wrong(check, net(), X, select=[101]), UsageError, ["select is a list ([101])"]),
    "select: empty": (wrong(check, net(), X, select=""), UsageError, ["select names no rule"]),
    "select: no item": (wrong(check, net(), X, select=[]), UsageError, ["select names no rule"]),
    "ignore: unknown": (wrong(check, net(), X, ignore=["zz"]), UsageError, ["unknown rule `zz`"]),
    "ignore: a number": (wrong(check, net(), X, ignore=3), UsageError, ["ignore is an int (3)"]),
    "min_confidence": (wrong(check, net(), X, min_confidence="x"), UsageError, ["low, medium or high"]),
    "min_confidence: None": (wrong(check, net(), X, min_confidence=None), UsageError, ["is None: expected"]),
    "device: unknown": (wrong(check, net(), X, device="banana"), UsageError, ["device 'banana' cannot be"]),
    "device, no inputs": (wrong(check, net(), device="banana"), UsageError, ["device 'banana' cannot be"]),
    "device: a float": (wrong(check, net(), X, device=3.5), UsageError, ["the device 3.5 cannot be used"]),
    "loss: unknown": (wrong(check, net(), X, loss="banana"), UsageError, ["unknown loss `banana`"]),
    "loss: a number": (wrong(check, net(), X, loss=3), UsageError, ["`loss` is an int"]),
    "loss: needs more": (
        wrong(check, net(), X, loss=nn.AdaptiveLogSoftmaxWithLoss),
        UsageError,
        ["cannot be made without arguments", "Pass the loss itself"],
    ),
    "labels, no loss": (wrong(check, net(), X, labels=X), UsageError, ["labels were given without a loss"]),
    "optimizer": (wrong(check, net(), X, optimizer="adam"), UsageError, ["optimizer is a str ('adam')"]),
    "reference": (wrong(check, net(), X, reference="ema"), UsageError, ["reference is a str ('ema')"]),
    "data: a number": (wrong(check, net(), X, data=3), UsageError, ["expected batches of data", "int (3)"]),
    "data: a text": (wrong(check, net(), X, data="abc"), UsageError, ["the data", "`abc`"]),
    "data: none": (wrong(check, net(), X, data=[]), UsageError, ["expected batches of data", "found none"]),
    "data: used up": (wrong(check, net(), X, data=iter([])), UsageError, ["expected batches", "found none"]),
    "data: numbers": (wrong(check, net(), X, data=[1]), UsageError, ["batch 0", "int", "(inputs, labels)"]),
    "data: empty batch": (wrong(check, net(), X, data=[()]), UsageError, ["batch 0 of the data is empty"]),
    "data: misfit": (wrong(check, net(), X, data=[X, X[:, :2]]), TraceError, ["RuntimeError on batch 1"]),
    "data: unknown key": (
        wrong(check, net(), X, data=[{"y": X}]),
        TraceError,
        ["TypeError on batch 0", "dict of keyword arguments"],
    ),
    "data: on meta": (
        wrong(check, net(), X, data=[X.to("meta")]),
        UsageError,
        ["batch 0 of the data cannot be put on cpu"],
    ),
    "data: no samples": (
        wrong(check, net(), X, data=[X, X[:0]]),
        UsageError,
        ["batch 1 of the data is empty: it was called with float32 (0, 3, 8, 8)"],
    ),
    "data: odd dict": (
        wrong(check, net(), X, data=[{"x": X, "y": 1}]),
        TraceError,
        ["on batch 0 of the data", "a dict of x, y"],
    ),
    "batches: too many": (wrong(check, net(), X, data=[X], batches=10**20), UsageError, ["of at most"]),
    "batch_size: huge": (
        wrong(check, net(), X, data="synthetic", batch_size=10**14),
        UsageError,
        ["a synthetic batch cannot be made"],
    ),
    "batch_to_inputs exits": (
        wrong(check, net(), X, data=[X], batch_to_inputs=lambda batch: sys.exit(1)),
        UsageError,
        ["batch_to_inputs raised SystemExit: 1 on batch 0"],
    ),
    "a part that is no module": (wrong(check, odd_part()), TargetError, ["its part 'odd' is an int (3)"]),
    "nested too deeply": (wrong(check, nested(3000)), TargetError, ["nested deeper than Python"]),
    "recalibrate: a number": (wrong(recalibrate, 3, [X]), UsageError, ["a module to recalibrate"]),
    "recalibrate: batches": (wrong(recalibrate, net(), [X], batches=0), UsageError, ["at least 1, found 0"]),
    "recalibrate: batch_to_inputs": (
        wrong(recalibrate, net(), [X], batch_to_inputs=3),
        UsageError,
        ["batch_to_inputs is an int (3)"],
    ),
    "recalibrate: no batch": (wrong(recalibrate, net(), []), UsageError, ["the data holds no batch"]),
    "recalibrate: one value": (
        wrong(recalibrate, nn.Sequential(nn.BatchNorm1d(3)), [torch.ones(1, 3)]),
        UsageError,
        ["`0.running_mean` got one value a channel"],
    ),
    "report of a watch": (
        lambda: watch(net()).report(min_confidence="x"),
        UsageError,
        ["low, medium or high"],
    ),
    "recalibrate: no data": (wrong(recalibrate, net(), 3), UsageError, ["expected batches of data"]),
    "convert: a number": (wrong(convert, 3, "batch->group"), UsageError, ["a module to convert, found int"]),
    "convert: a class": (wrong(convert, nn.Linear, "batch->group"), UsageError, ["found type"]),
    "convert: unknown": (wrong(convert, net(), "batch->grup"), UsageError, ["Did you mean `batch->group`"]),
    "convert: no spec": (wrong(convert, net(), None), UsageError, ["expected a conversion", "None"]),
    "num_groups: 0": (wrong(converted, num_groups=0), UsageError, ["at least 1; got 0"]),
    "num_groups: a text": (wrong(converted, num_groups="4"), UsageError, ["whole number", "got '4'"]),
    "num_groups: a float": (wrong(converted, num_groups=2.0), UsageError, ["whole number", "got 2.0"]),
    "where: a number": (wrong(converted, where=3), UsageError, ["where is an int (3)", "layer1.*"]),
    "where: numbers": (wrong(converted, where=[1]), UsageError, ["where is a list ([1])"]),
    "convert: inputs": (wrong(converted, inputs=3), UsageError, ["`inputs` is a int"]),
    "convert: misfit": (wrong(converted, inputs=X[:, :2]), TraceError, ["raised on the inputs, before"]),
    "convert: optimizer": (
        wrong(converted, optimizer="adam", inplace=True),
        UsageError,
        ["is a str ('adam')"],
    ),
    "watch: a number": (wrong(watch, 3), UsageError, ["expected a module to watch, found int"]),
    "every: 0": (wrong(watch, net(), every=0), UsageError, ["at least 1; got 0"]),
    "every: a text": (wrong(watch, net(), every="5"), UsageError, ["counts steps", "got '5'"]),
    "every: a float": (wrong(watch, net(), every=2.5), UsageError, ["counts steps", "got 2.5"]),
    "on_finding": (
        wrong(watch, net(), on_finding="shout"),
        UsageError,
        ["'warn', 'stop', 'ignore' or a callable"],
    ),
    "step outside": (lambda: watch(net()).step(), UsageError, ["outside of the watch", "with normdoctor"]),
    "step: a text": (wrong(step, "abc"), UsageError, ["loss is a str ('abc')", "a tensor or a number"]),
    "step: complex": (wrong(step, torch.tensor(1j)), UsageError, ["complex64: expected real numbers"]),
    "step: truth": (wrong(step, True), UsageError, ["loss is a bool (True)"]),
    "step: a mask": (wrong(step, torch.tensor(True)), UsageError, ["torch.bool: expected real numbers"]),
    "step: nothing": (wrong(step, torch.empty(0)), UsageError, ["shape (0,), which holds no number"]),
    "step: sparse": (wrong(step, torch.eye(2).to_sparse()), UsageError, ["expected a dense one"]),
    "step: a huge number": (wrong(step, 10**400), UsageError, ["beyond the largest float"]),
    "step: a dict": (wrong(step, {"loss": X}), UsageError, ["loss is a dict", "that backward() was called"]),
    "every: True": (wrong(watch, net(), every=True), UsageError, ["counts steps", "got True"]),
    "every: NaN": (wrong(watch, net(), every=float("nan")), UsageError, ["counts steps", "got nan"]),
    "budget: negative": (wrong(watch, net(), budget=-1), UsageError, ["counts values", "got -1"]),
    "budget: NaN": (wrong(watch, net(), budget=float("nan")), UsageError, ["counts values", "got nan"]),
    "on_finding: a list": (wrong(watch, net(), on_finding=["warn"]), UsageError, ["or a callable"]),
    "on_finding: a class": (wrong(watch, net(), on_finding=Exception), UsageError, ["the class Exception"]),
    "optimizer of another model": (
        wrong(watch, net(), torch.optim.SGD(net().parameters(), 0.1)),
        UsageError,
        ["(SGD) trains no parameter of the model that is watched", "Pass the optimizer of this model"],
    ),
    "watch: lazy": (
        wrong(watch, nn.Sequential(nn.LazyLinear(4))),
        UsageError,
        ["`0.weight` belongs to a lazy module", "Run the model once"],
    ),
    "step: a list": (wrong(step, [1, 2]), UsageError, ["loss is a list ([1, 2])"]),
    "watch twice": (entered_twice, UsageError, ["already running", "Make a second one"]),
}


@pytest.mark.parametrize("kind", TABLE)
def test_one_clear_error(kind: str) -> None:
    call, error, words = TABLE[kind]
    with pytest.raises(NormDoctorError) as caught:
        call()
    assert isinstance(caught.value, error)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_forward_that_moves_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Moves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            os.chdir(os.sep)
            torch.set_default_dtype(torch.float64)
            return x.relu()

    monkeypatch.chdir(tmp_path)
    assert not check(Moves(), X, data=[X]).problems
    assert Path.cwd() == tmp_path
    assert torch.get_default_dtype() == torch.float32


def test_a_watch_on_meta() -> None:
    model = net().to("meta")
    with watch(model, every=1, on_finding="ignore") as watched:
        model(X.to("meta"))
        watched.step()
        watched.step(torch.ones((), device="meta"))
    assert watched.observed == 1
    assert watched.history()["losses"] == {"loss": {"value": []}}


@pytest.mark.parametrize(
    "loss", [None, 1, 2.0, float("nan"), torch.tensor(3), torch.ones(4), torch.ones(2, 2)]
)
def test_losses_that_are_taken(loss: Any) -> None:
    model = net()
    with watch(model, every=1, on_finding="ignore") as watched:
        for _ in range(2):
            model(X).sum().backward()
            watched.step(loss)
    points = watched.history()["losses"]["loss"]["value"]
    assert len(points) == (0 if loss is None else 2)
    not_finite = any("not finite in 2 of 2" in note for note in watched.report().targets[0].notes)
    assert not_finite == (isinstance(loss, float) and loss != loss)  # noqa: PLR0124


@pytest.mark.parametrize("kind", ["part", "two models", "none of its own"])
def test_optimizers_that_are_taken(kind: str) -> None:
    model, other = net(), net()
    parameters = {
        "part": list(model[0].parameters()),  # type: ignore[index]
        "two models": [*model.parameters(), *other.parameters()],
        "none of its own": list(other.parameters()),
    }[kind]
    watch(nn.ReLU() if kind == "none of its own" else model, torch.optim.SGD(parameters, 0.1))


def test_watches_in_each_other_and_one_after_the_other() -> None:
    model = net()
    with (
        watch(model, every=1, on_finding="ignore") as outer,
        watch(model, every=2, on_finding="ignore") as inner,
        watch(model[0], every=1, on_finding="ignore") as part,  # type: ignore[index]
    ):
        for _ in range(4):
            model(X).sum().backward()
            for one in (part, inner, outer):
                one.step()
    assert [outer.observed, inner.observed, part.observed] == [4, 2, 4]
    with outer:
        model(X).sum().backward()
        outer.step()
    assert (outer.steps, outer.observed) == (5, 5)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_a_callback_that_raises() -> None:
    model = net()
    with torch.no_grad():
        model[0].bias.fill_(float("nan"))  # type: ignore[index, union-attr, operator]

    def mine(finding: Any) -> None:
        raise LookupError(finding.code)

    def train() -> None:
        with watch(model, every=1, on_finding=mine) as watched:
            for _ in range(12):
                model(X).sum().backward()
                watched.step()

    with pytest.raises(LookupError, match="ND"):
        train()
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


@pytest.mark.parametrize("steps", [0, 3])
def test_steps_without_a_forward(steps: int) -> None:
    with watch(net(), every=1, on_finding="ignore") as watched:
        for _ in range(steps):
            watched.step()
    report = watched.report()
    assert "no forward of the model was seen" in " ".join(report.targets[0].notes)
    assert set(report.counts()) <= {"skipped", "passed"}


def threshold(value: Any) -> Any:
    from normdoctor.rules.measured.dead_units import DeadUnits

    return DeadUnits({"warning": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
def test_thresholds_are_numbers(value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match="`warning` is"):
        threshold(value)
    assert threshold(0.5).options.warning == 0.5


COMMANDS = {
    "--data pkg:nothing": 2,
    "--data synthetic --batches 0": 2,
    "--data synthetic --batches nan": 2,
    "--data synthetic --batch-size -1": 2,
    "--data data.py:raises": 2,
    "--data data.py:empty": 2,
    "--data data.py:odd": 2,
    "--data data.py:none": 2,
    "--data data.py:good": 0,
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_exit_codes(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from normdoctor.cli import main

    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text("from torch import nn\nmodel = nn.Sequential(nn.Linear(4, 4), nn.Tanh())\n")
    Path("data.py").write_text(
        "import torch\n\ndef raises():\n    yield torch.ones(2, 4)\n    raise OSError('gone')\n\n"
        "empty = []\nodd = [None]\nnone = None\ngood = [torch.randn(8, 4) for _ in range(3)]\n"
    )
    command = ["check", "model.py:model", "--input", "2,4", "--select", "ND6", *arguments.split()]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == COMMANDS[arguments], result.output
    assert "Traceback" not in result.output


#: Models that do not run are reported, with what their modules alone tell.
PROBLEMS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "no arguments": (wrong(check, net(), ()), ["missing 1 required", "The forward takes (input)"]),
    "misfit": (wrong(check, net(), X[:, :2]), ["the forward raised RuntimeError", "Check the inputs"]),
    "not a tensor": (wrong(check, net(), (None,)), ["the forward raised TypeError", "NoneType"]),
    "loss raises": (
        wrong(check, net(), X, loss=lambda output, labels: 1 / 0),
        ["the loss raised ZeroDivisionError at", "test_api_misuse.py", "the model itself ran"],
    ),
    "labels misfit": (
        wrong(check, net(), X, loss=nn.CrossEntropyLoss(), labels=torch.zeros(9).long()),
        ["the loss raised ", "Check the loss and its labels"],
    ),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_model_that_does_not_run_is_a_problem_of_the_report(kind: str) -> None:
    call, words = PROBLEMS[kind]
    report = call()
    assert not report.ok
    (problem,) = report.problems
    for word in words:
        assert word in f"{problem.message}\n{problem.hint}"
