"""The callback in real trainings by the Trainer of transformers."""

import importlib
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

from normdoctor import NormDoctorWarning

pytestmark = pytest.mark.filterwarnings("ignore", "error::normdoctor.probing.live.NormDoctorWarning")


@pytest.fixture
def hf():
    pytest.importorskip("accelerate")
    return pytest.importorskip("transformers")


@pytest.fixture
def doctor(hf):
    return importlib.import_module("normdoctor.integrations.transformers").NormDoctorCallback


@pytest.fixture
def bert(hf):
    def make(dead=False):
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = hf.BertConfig(
            **sizes,
            intermediate_size=32,
            max_position_embeddings=16,
            hidden_act="relu",
            initializer_range=0.2,
        )
        model = hf.BertForSequenceClassification(config)
        if dead:
            nn.init.constant_(model.bert.encoder.layer[1].intermediate.dense.bias, -1000.0)
        return model

    return make


@pytest.fixture
def rows():
    torch.manual_seed(1)
    words, labels = torch.randint(50, (64, 12)), torch.randint(2, (64,))
    return [{"input_ids": x, "labels": y} for x, y in zip(words, labels, strict=True)]


@pytest.fixture
def trainer(hf, rows, tmp_path):
    def make(model, *callbacks, **more):
        given = {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "report_to": [],
        }
        quiet = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
        args = hf.TrainingArguments(str(tmp_path / "out"), **{**given, **quiet, **more})
        return hf.Trainer(model, args, train_dataset=rows, eval_dataset=rows, callbacks=list(callbacks))

    return make


def seen(callback):
    (watch,) = callback._session.watches
    return watch


LAYER = "bert.encoder.layer.1.intermediate.intermediate_act_fn"


def test_weights_and_generators_are_as_without_it(hf, doctor, bert, trainer, outcome, hooks):
    found, steps = [], {}
    for callbacks in ([], [doctor(every=4, sink=lambda metrics, step: steps.update({step: metrics}))]):
        model = bert()
        before = hooks(model)
        random.seed(0)
        trainer(model, *callbacks, eval_strategy="epoch").train()
        assert hooks(model) == before
        found.append(outcome(model))
    (callback,) = callbacks
    assert isinstance(callback, hf.TrainerCallback)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert (seen(callback).steps, seen(callback).observed) == (16, 4)
    assert list(steps) == [1, 5, 9, 13]
    assert steps[1]["normdoctor/model/loss"] == pytest.approx(0.69, abs=0.2)
    assert {f"normdoctor/{LAYER}/dead_units", "normdoctor/classifier/weight_update_ratio"} <= set(steps[5])
    report = callback.report()
    assert report.targets[0].name == "BertForSequenceClassification"
    assert report.ok


def test_a_fault_is_told_with_its_layer_and_stops(doctor, bert, trainer, hooks):
    callback = doctor(every=1, select="ND602")
    with pytest.warns(NormDoctorWarning, match=rf"ND602 dead-layer: .*`{LAYER}`"):
        trainer(bert(dead=True), callback).train()
    (finding,) = callback.report().findings
    assert (finding.code, finding.modules) == ("ND602", (LAYER,))
    model = bert(dead=True)
    training = trainer(model, doctor(every=1, select="ND602", on_finding="stop"))
    with pytest.warns(NormDoctorWarning, match=r"the training is stopped: ND602"):
        training.train()
    assert 6 <= training.state.global_step < 16
    assert hooks(model) == 0


def test_accumulated_batches_are_one_step_and_evaluation_is_none(hf, doctor, bert, trainer):
    held = []

    class Evaluated(hf.TrainerCallback):
        def on_evaluate(self, args, state, control, **known):
            held.append(len(callback._session._losses))

    callback = doctor(every=2)
    trainer(bert(), callback, Evaluated(), gradient_accumulation_steps=4, eval_strategy="epoch").train()
    assert (seen(callback).steps, seen(callback).observed) == (4, 2)
    assert seen(callback).measurements()["modes"][":model"]["forwards"] == {"4": 4}
    assert held == [0, 0]  # losses of an evaluation are not those of the next step


def test_hooks_are_gone_after_an_exception(hf, doctor, bert, trainer, hooks):
    class Fails(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **known):
            if state.global_step == 3:
                raise RuntimeError("out of memory")

    model = bert()
    callback = doctor(every=1)
    with pytest.raises(RuntimeError, match="out of memory"), callback:
        trainer(model, callback, Fails()).train()
    assert hooks(model) == 0
    # Without the context the next training takes them off, of whatever model.
    left = doctor(every=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(model, left, Fails()).train()
    assert hooks(model) > 0
    trainer(bert(), left, max_steps=2).train()
    assert hooks(model) == 0


def test_a_checkpoint_goes_on(doctor, bert, trainer, tmp_path):
    steps = []
    callback = doctor(every=4, sink=lambda metrics, step: steps.append(step))
    trainer(bert(), callback, num_train_epochs=1, save_strategy="epoch").train()
    trainer(bert(), callback).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))
    assert steps == [1, 5, 9, 13]


def test_a_model_that_is_exchanged_or_wrapped(doctor, bert, hooks):
    state, control = SimpleNamespace(global_step=1), SimpleNamespace()
    first, second = bert(), bert()
    callback = doctor(every=1)
    callback.on_train_begin(None, state, control, model=first, optimizer=None)
    held = callback._session
    callback.on_step_begin(None, state, control, model=DataParallel(first))
    assert callback._session is held
    callback.on_step_begin(None, state, control, model=second)
    assert hooks(first) == 0 or callback._session is not held
    assert callback._session.watches[0].model is second
    callback.close()
    assert hooks(first) == hooks(second) == 0


def test_the_report_is_printed_when_asked(doctor, bert, trainer, capsys):
    trainer(bert(), doctor(print_report=True), max_steps=3).train()
    assert "watched 1 of 3 steps" in capsys.readouterr().out
