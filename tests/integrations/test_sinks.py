"""Sinks: what each look hands on, and what TensorBoard, W&B and MLflow make of it."""

import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normdoctor
from normdoctor import integrations
from normdoctor.errors import UsageError
from normdoctor.integrations import JsonLines, MissingExtraError, MLflow, TensorBoard, WandB


def train(model, loader, sink, every=4, change=None, **more):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with normdoctor.watch(model, optimizer, every=every, on_finding="ignore", sink=sink, **more) as watch:
        for step, (x, y) in enumerate(loader):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if change is not None:
                change(step, x)
            optimizer.step()
            watch.step(loss)
    return watch


def test_figures_are_those_of_the_look(net, loader):
    rows, expected = {}, {}
    model = net().double()
    model[3].p = 0.0

    def change(step, x):
        # What the first layer puts out, and the state of its gradient in front of the optimizer.
        weight = model[0].weight
        ratio = 0.05 * weight.grad.norm() / weight.norm()
        rms = weight.grad.square().mean().sqrt()
        out = model[0](x)
        expected[step] = [float(v.detach()) for v in (out.mean(), out.var(correction=0), rms, ratio)]

    data = [(x.double() * (1 + place), y) for place, (x, y) in enumerate(loader())]
    watch = train(
        model, data, lambda metrics, step: rows.update({step: metrics}), every=3, budget=None, change=change
    )
    assert list(rows) == [0, 3, 6]
    names = ("mean", "variance", "weight_gradient_rms", "weight_update_ratio")
    for step, metrics in rows.items():
        found = [metrics[f"normdoctor/0/{name}"] for name in names]
        assert found == pytest.approx(expected[step], rel=1e-4)
    history = watch.history()
    assert [metrics["normdoctor/model/loss"] for metrics in rows.values()] == pytest.approx(
        [value for step, value in history["losses"]["loss"]["value"] if step in rows]
    )
    tags = set(rows[0])
    assert {"normdoctor/model/input_mean", "normdoctor/1/running_mean_gap", "normdoctor/2/dead_units"} <= tags
    assert all(type(value) is float and math.isfinite(value) for value in rows[0].values())


def test_dead_and_saturated_units():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x):
            return torch.tanh(self.b(F.relu(F.relu(self.a(x)))))

    torch.manual_seed(0)
    model, rows = Block(), []
    with torch.no_grad():
        model.a.bias[:4] = -1000.0
        model.b.bias[:1] = 1000.0
    data = [(torch.randn(32, 8), torch.randint(4, (32,))) for _ in range(4)]
    watch = train(model, data, lambda metrics, step: rows.append(metrics), every=1)
    for one in rows:
        assert one["normdoctor/model/relu_dead_units"] == one["normdoctor/model/relu2_dead_units"] == 0.25
        assert one["normdoctor/model/tanh_saturated"] == 0.25
    assert {one["normdoctor/model/findings"] for one in rows} == {0.0}  # nothing is judged
    assert watch.observed == 4


def test_gradients_that_come_late_have_their_own_step(net, loader):
    model, rows = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sink = rows.append
    with normdoctor.watch(model, every=4, on_finding="ignore", sink=lambda m, step: sink((step, m))) as watch:
        for step, (x, y) in enumerate(loader()):
            F.cross_entropy(model(x), y).backward()
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
            watch.step()
    kinds = [(step, "normdoctor/0/mean" in m, "normdoctor/0/weight_update_ratio" in m) for step, m in rows]
    # A look lasts until the optimizer's step; before the first nobody knows that there is an optimizer.
    assert kinds[-2:] == [(4, True, False), (5, False, True)]


def test_a_full_window_begins_anew(net, loader, monkeypatch):
    monkeypatch.setattr("normdoctor.probing.monitor.WINDOW", 4)
    rows, means, model = {}, [], net()
    data = [batch for _ in range(2) for batch in loader()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    given = {"every": 1, "on_finding": lambda finding: None, "budget": None}
    with normdoctor.watch(model, optimizer, sink=lambda m, step: rows.update({step: m}), **given) as watch:
        for x, y in data:
            means.append(float((x @ model[0].weight.T + model[0].bias).detach().mean()))
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            watch.step()
    assert watch._forwards >= 8  # two windows are over
    for step, metrics in rows.items():
        assert metrics["normdoctor/0/mean"] == pytest.approx(means[step], abs=1e-5)


class Waits(TorchDispatchMode):
    """Counts calls that make the host wait for a value of the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(part in str(func) for part in ("_local_scalar_dense", "nonzero", "equal.default")):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_look_waits_for_nothing(net, loader, monkeypatch):
    """With copies that are on their way, as on a card, figures are handed on by a later step."""
    from normdoctor.probing import feed

    class Slow(feed.Transfer):
        ready = False

        @property
        def arrived(self):
            return Slow.ready

    monkeypatch.setattr(feed, "Transfer", Slow)
    rows, model = [], net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = list(loader())
    sink = lambda metrics, step: rows.append(step)  # noqa: E731
    with normdoctor.watch(model, optimizer, every=2, on_finding="ignore", sink=sink) as watch:
        for step, (x, y) in enumerate(batches):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            Slow.ready = step == 5
            if step == 5:
                assert rows == []
                watch.step()
                assert rows == [0, 2, 4]
            else:
                with Waits() as waits:
                    watch.step()
                assert waits.found == []
    assert rows == [0, 2, 4, 6]


def fails(model, watch, loader):
    model(next(iter(loader))[0])
    watch.step()
    raise RuntimeError("no")


def test_after_an_exception_what_has_arrived_is_handed_on(net, loader):
    rows, model = [], net()
    with (
        pytest.raises(RuntimeError, match="no"),
        normdoctor.watch(model, sink=lambda m, step: rows.append(step)) as w,
    ):
        fails(model, w, loader())
    assert rows == [0]


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(net, loader, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows, board = {}, TensorBoard(tmp_path)

    def both(metrics, step):
        rows[step] = metrics
        board.log(metrics, step)

    train(net(), loader(), both)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(rows[0]) | set(rows[4])
    for tag in ("normdoctor/0/variance", "normdoctor/4/bias_gradient_rms"):
        read = {one.step: one.value for one in events.Scalars(tag)}
        assert read == pytest.approx({step: metrics[tag] for step, metrics in rows.items()})
    board.writer.close()
    with pytest.raises(UsageError, match="expected a SummaryWriter"):
        TensorBoard(3)


@pytest.mark.filterwarnings("ignore")
def test_wandb(net, loader, tmp_path):
    wandb = pytest.importorskip("wandb")
    with pytest.raises(UsageError, match=r"Call wandb\.init"):
        WandB()
    rows = {}
    with wandb.init(mode="disabled", dir=str(tmp_path)) as run:
        run.log = lambda data: rows.update({data["normdoctor/step"]: data})
        train(net(), loader(), WandB())
    assert list(rows) == [0, 4]
    assert "normdoctor/0/mean" in rows[4]
    offline = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(x_disable_stats=True))
    sink = WandB(offline)
    offline.log({"own": 1.0}, step=100)
    sink.log({"normdoctor/0/mean": 0.5}, 3)  # not dropped, although the run's own step is beyond
    assert offline.summary["normdoctor/0/mean"] == 0.5
    offline.finish()


@pytest.mark.filterwarnings("ignore")
def test_mlflow(net, loader, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("normdoctor.integrations.sinks._MOST", 7)
    with pytest.raises(UsageError, match="no active run"):
        MLflow()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    rows = {}
    with mlflow.start_run() as run:
        sink = MLflow()

        def both(metrics, step):
            rows[step] = metrics
            sink.log(metrics, step)

        train(net(), loader(), both)
    client = mlflow.MlflowClient()
    assert set(client.get_run(run.info.run_id).data.metrics) == set(rows[0]) | set(rows[4])
    history = client.get_metric_history(run.info.run_id, "normdoctor/0/variance")
    assert {one.step: one.value for one in history} == pytest.approx(
        {step: metrics["normdoctor/0/variance"] for step, metrics in rows.items()}
    )


def test_a_file_of_lines(net, loader, tmp_path):
    model, path = net(), tmp_path / "figures.jsonl"

    def change(step, x):
        if step == 4:
            model[6].weight.grad.fill_(torch.nan)

    train(model, loader(), JsonLines(path), change=change)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4]
    assert lines[1]["metrics"]["normdoctor/6/weight_gradient_rms"] is None
    assert lines[1]["metrics"]["normdoctor/4/weight_gradient_rms"] > 0


def test_a_sink_that_raises_does_not_end_a_training(net, loader):
    steps = []

    def sink(metrics, step):
        steps.append(step)
        raise OSError(28, "No space left on device")

    with pytest.warns(normdoctor.NormDoctorWarning, match="OSError.*No space left.*no more") as told:
        watch = train(net(), loader(), sink)
    assert steps == [0]
    assert len(told) == 1
    assert watch.report().problems == ()


@pytest.mark.parametrize("path", [".", "gone/figures.jsonl"])
def test_a_file_that_cannot_be(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot write figures to"):
        JsonLines(path)


def test_what_is_no_sink():
    for wrong in (3, "runs", JsonLines, nn.ReLU(), object()):
        with pytest.raises(UsageError, match="sink is"):
            normdoctor.watch(nn.ReLU(), sink=wrong)
    assert isinstance(JsonLines("x"), integrations.MetricSink)


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (lambda: WandB(), "wandb"),
        (lambda: MLflow(), "mlflow"),
        (lambda: TensorBoard("x"), "torch.utils.tensorboard"),
    ],
)
def test_missing_packages_are_named(monkeypatch, make, missing):
    for name in [one for one in sys.modules if f"{one}.".startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match="pip install"):
        make()
