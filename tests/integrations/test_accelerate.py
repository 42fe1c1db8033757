"""`normdoctor.watch` in a loop with accelerate."""

import contextlib
import random

import pytest
import torch
import torch.nn.functional as F

import normdoctor

pytestmark = pytest.mark.filterwarnings("ignore", "error::normdoctor.probing.live.NormDoctorWarning")


@pytest.fixture
def accelerator():
    accelerate = pytest.importorskip("accelerate")

    def make(**more):
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        return accelerate.Accelerator(cpu=True, **more)

    yield make
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def train(accelerator, model, loader, *, watched=True, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.manual_seed(5)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    watch = normdoctor.watch(model, optimizer, on_finding="ignore", **options)
    with watch if watched else contextlib.nullcontext():
        for _ in range(2):
            for x, y in loader:
                with accelerator.accumulate(model):
                    loss = F.cross_entropy(model(x), y)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                if watched and accelerator.sync_gradients:
                    watch.step(loss)
    return watch


def test_weights_are_as_without_it(accelerator, net, loader, outcome, hooks):
    found = []
    for watched in (False, True):
        model = net()
        random.seed(0)
        watch = train(accelerator(), model, loader(), watched=watched, every=4)
        assert hooks(model) == 0
        found.append(outcome(model))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert (watch.steps, watch.observed) == (16, 4)
    assert watch.report().ok


@pytest.mark.parametrize("more", [{"gradient_accumulation_steps": 4}, {"mixed_precision": "bf16"}])
def test_faults_have_their_layer(accelerator, net, loader, more):
    watch = train(accelerator(**more), net(dead=16), loader(), every=1)
    assert watch.steps == (4 if "gradient_accumulation_steps" in more else 16)
    assert ("ND602", ("5",)) in [(one.code, one.modules) for one in watch.report().findings]
    assert watch.measurements()["gradients"]["0.weight"]["optimized"]


def test_an_accelerator_is_a_sink(accelerator, net, loader, tmp_path):
    pytest.importorskip("tensorboard")
    tracked = accelerator(log_with="tensorboard", project_dir=tmp_path)
    tracked.init_trackers("run")
    train(tracked, net(), loader(), every=8, sink=tracked)
    tracked.end_training()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert [one.step for one in events.Scalars("normdoctor/0/mean")] == [0, 8]
