"""The callback in real trainings by Lightning, under both of its names."""

import copy
import importlib
import pickle
import random
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import NormDoctorWarning
from normdoctor.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore", "error::normdoctor.probing.live.NormDoctorWarning")


def imported(name):
    pytest.importorskip(name.partition(".")[0])
    return importlib.import_module(name)


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def both(request):
    return imported(request.param)


@pytest.fixture
def pl():
    return imported("lightning.pytorch")


@pytest.fixture
def doctor():
    pytest.importorskip("lightning")
    return importlib.import_module("normdoctor.integrations.lightning").NormDoctorCallback


def lit(pl, net, training_step=None, **more):
    class Lit(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return self.criterion(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.criterion(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    for name, function in {"training_step": training_step, **more}.items():
        if function is not None:
            setattr(Lit, name, function)
    return Lit()


def trainer(pl, *callbacks, epochs=2, **more):
    quiet = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), **{**quiet, **more})


def seen(callback):
    (watch,) = callback._session.watches
    return watch


def test_weights_and_generators_are_as_without_it(both, doctor, net, loader, outcome, hooks):
    found = []
    for callbacks in ([], [doctor(every=3, sink=lambda metrics, step: None)]):
        module = lit(both, net())
        before = hooks(module)
        random.seed(0)
        torch.manual_seed(5)
        trainer(both, *callbacks).fit(module, loader(), loader())
        assert hooks(module) == before
        found.append(outcome(module))
    (callback,) = callbacks
    assert isinstance(callback, both.Callback)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert (seen(callback).steps, seen(callback).observed) == (15, 5)  # the first batch shows what is called
    report = callback.report()
    assert report.targets[0].name == "Lit.net"
    assert [one.code for one in report.findings if one.severity != "info"] == []


def test_a_fault_is_told_with_its_layer(both, doctor, net, loader):
    callback = doctor(every=1)
    with pytest.warns(NormDoctorWarning, match=r"ND602 dead-layer: .*`5`"):
        trainer(both, callback).fit(lit(both, net(dead=16)), loader())
    assert ("ND602", ("5",)) in [(one.code, one.modules) for one in callback.report().findings]


def test_stop_stops(pl, doctor, net, loader, hooks):
    module, callback = lit(pl, net(dead=16)), doctor(every=1, on_finding="stop", select=["ND602", "ND601"])
    fit = trainer(pl, callback, epochs=50)
    with pytest.warns(NormDoctorWarning, match=r"the training is stopped: ND602"):
        fit.fit(module, loader())
    assert 6 <= fit.global_step < 16
    assert hooks(module) == 0


def test_ignored_rules_and_functions(pl, doctor, net, loader):
    told = []
    trainer(pl, doctor(every=1, on_finding=told.append)).fit(lit(pl, net(dead=16)), loader())
    assert {one.code for one in told} == {"ND602"}
    callback = doctor(every=1, ignore=["ND6", "ND8"])
    trainer(pl, callback).fit(lit(pl, net(dead=16)), loader())
    assert {one.code for one in callback.report().findings} <= {"ND701"}


def test_hooks_are_gone_after_an_exception(both, doctor, net, loader, hooks):
    def training_step(self, batch, batch_idx):
        if batch_idx == self.last:
            raise RuntimeError("out of memory")
        return F.cross_entropy(self.net(batch[0]), batch[1])

    for last in (0, 3):
        module, callback = lit(both, net(), training_step, last=last), doctor(every=1)
        with pytest.raises(RuntimeError, match="out of memory"):
            trainer(both, callback).fit(module, loader())
        assert hooks(module) == 0
    assert seen(callback).steps == 2


def test_figures_go_to_loggers_and_sinks(pl, doctor, net, loader, tmp_path):
    rows = {}
    logger = pl.loggers.CSVLogger(tmp_path)
    callback = doctor(every=4, sink=lambda metrics, step: rows.update({step: metrics}))
    trainer(pl, callback, logger=logger).fit(lit(pl, net()), loader())
    assert list(rows) == [2, 6, 10, 14]
    written = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    names = written[0].split(",")
    assert {"normdoctor/1/running_mean_gap", "normdoctor/2/dead_units", "normdoctor/model/loss"} <= set(names)
    by_step = {line.split(",")[names.index("step")]: line.split(",") for line in written[1:]}
    for step, metrics in rows.items():
        shown = float(by_step[str(step)][names.index("normdoctor/0/weight_update_ratio")])
        assert shown == pytest.approx(metrics["normdoctor/0/weight_update_ratio"])
    quiet = doctor(log=False)
    trainer(pl, quiet, logger=logger).fit(lit(pl, net()), loader())
    assert not quiet._session._logs


def test_accumulated_batches_are_one_step(pl, doctor, net, loader):
    callback = doctor(every=2)
    trainer(pl, callback, accumulate_grad_batches=4).fit(lit(pl, net()), loader())
    assert seen(callback).steps == 4
    assert seen(callback).measurements()["modes"][":model"]["forwards"] == {"3": 1, "4": 3}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_gradients_are_read_unscaled(pl, doctor, net, loader, precision):
    found = []
    for way in ("32-true", precision):
        rows = []
        torch.manual_seed(3)
        more = {"precision": way}
        if way == "16-mixed":  # by its name it is refused on a CPU
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            more = {"plugins": [pl.plugins.MixedPrecision("16-mixed", "cpu", scaler)]}
        callback = doctor(every=2, sink=lambda metrics, step, rows=rows: rows.append(metrics))
        trainer(pl, callback, **more).fit(lit(pl, net()), loader())
        found.append([row["normdoctor/4/weight_gradient_rms"] for row in rows])
        assert callback.report().ok
    assert found[1][:3] == pytest.approx(found[0][:3], rel=0.1)


def gan(pl):
    class Gan(pl.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.generator = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 8))
            self.judge = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            fake = self.generator(torch.randn(len(batch[0]), 4))
            loss = F.softplus(-self.judge(fake)).mean()
            self.one_step(first, loss)
            real, made = self.judge(batch[0]), self.judge(fake.detach())
            self.one_step(second, (F.softplus(-real) + F.softplus(made)).mean())

        def one_step(self, optimizer, loss):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.Adam(one.parameters(), lr=1e-3) for one in (self.generator, self.judge)]

    return Gan()


def test_two_networks_and_steps_by_hand(pl, doctor, loader):
    rows = []
    callback = doctor(every=2, sink=lambda metrics, step: rows.append((step, metrics)))
    trainer(pl, callback).fit(gan(pl), loader())
    report = callback.report()
    assert [one.name for one in report.targets] == ["Gan.generator", "Gan.judge"]
    assert [watch.steps for watch in callback._session.watches] == [15, 15]
    assert {step for step, _ in rows} == {4, 8, 12, 16, 20, 24, 28, 32}  # Lightning counts both optimizers
    tags = {tag for _, metrics in rows for tag in metrics}
    assert {"normdoctor/generator.1/mean", "normdoctor/judge.0/weight_update_ratio"} <= tags
    named = doctor(modules="judge")
    trainer(pl, named).fit(gan(pl), loader())
    assert (named.report().targets[0].name, seen(named).steps) == ("Gan.judge", 16)
    with pytest.raises(UsageError, match="no module `critic`"):
        trainer(pl, doctor(modules=["critic"])).fit(gan(pl), loader())


@pytest.mark.parametrize("way", ["forward", "layers"])
def test_which_part_is_watched(pl, doctor, net, loader, way):
    def training_step(self, batch, batch_idx):
        x, y = batch
        if way == "layers":
            for layer in self.net:
                x = layer(x)
        return self.criterion(x if way == "layers" else self(x), y)

    callback = doctor(every=2)
    trainer(pl, callback).fit(lit(pl, net(), training_step), loader())
    report = callback.report()
    assert report.targets[0].name == "Lit"
    assert report.ok
    assert "net.0:linear" in seen(callback).measurements()["units"]


def test_distributed_data_parallel(pl, doctor, net, loader):
    callback = doctor(every=2)
    trainer(pl, callback, strategy="ddp", devices=1).fit(
        lit(
            pl,
            net(),
        ),
        loader(),
    )
    assert callback.report().targets[0].name == "Lit.net"
    assert seen(callback).observed == 8
    assert seen(callback).broadcasts  # so running statistics that differ between ranks are none of its faults


def test_a_checkpoint_goes_on(pl, doctor, net, loader, tmp_path):
    steps = []
    first = doctor(every=4, sink=lambda metrics, step: steps.append(step))
    saved = trainer(pl, first, epochs=1, enable_checkpointing=True, default_root_dir=tmp_path)
    saved.fit(lit(pl, net()), loader())
    path = saved.checkpoint_callback.best_model_path
    assert not [key for key in torch.load(path, weights_only=False)["callbacks"] if "NormDoctor" in key]
    trainer(pl, first).fit(lit(pl, net()), loader(), ckpt_path=path)
    assert steps == [2, 6, 10, 14]
    assert seen(first).steps == 7


def test_it_is_copied_and_pickled(both, doctor):
    callback = doctor(every=7, ignore="ND701")
    for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert isinstance(other, doctor)
        assert isinstance(other, both.Callback)
        assert other._options == callback._options

    class Mine(doctor):
        pass

    assert isinstance(Mine(), Mine)
    assert type(Mine()) is type(Mine())


def test_arguments_are_refused_at_once(doctor):
    for wrong in ({"every": 0}, {"on_finding": "shout"}, {"select": "ND999"}, {"sink": 3}, {"ignore": 5}):
        with pytest.raises(UsageError):
            doctor(**wrong)
    for modules in (3, [], [3], {"net": 1}):
        with pytest.raises(UsageError, match="expected paths of networks"):
            doctor(modules=modules)
    with pytest.raises(UsageError, match="nothing was watched yet"):
        doctor().report()


def test_a_missing_framework_is_named(monkeypatch):
    from normdoctor.integrations.extras import MissingExtraError
    from normdoctor.integrations.lightning import NormDoctorCallback

    for name in [one for one in sys.modules if one.split(".")[0] in ("lightning", "pytorch_lightning")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'normdoctor\[lightning\]'"):
        NormDoctorCallback()
