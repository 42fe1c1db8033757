"""`normdoctor.watch` around a training loop."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import normdoctor
from normdoctor.errors import UsageError
from normdoctor.probing.monitor import NormDoctorWarning


def net(dead: int = 0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].bias[:dead] = -1000.0
    return model


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def train(model, steps, watch=None, call=None):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        x, y = torch.randn(256, 8, generator=generator), torch.randint(2, (256,), generator=generator)
        loss = nn.functional.cross_entropy((call or model)(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch.step(loss)


def test_finds_dead_units_and_warns_at_the_end():
    model = net(dead=8)
    expected = pytest.warns(NormDoctorWarning, match=r"ND601 dead-units: 8 of 16 units of `1`")
    with expected, normdoctor.watch(model, every=2) as w:
        train(model, 10, w)
    assert (w.steps, w.observed) == (10, 5)
    (finding,) = w.report().findings
    assert finding.code == "ND601"
    assert finding.severity == "error"
    assert finding.evidence["observations"] == 5 * 256
    assert hooks_of(model) == 0


def test_a_healthy_training_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with normdoctor.watch(net(), every=1) as w:
            train(w.model, 6, w)
    assert w.report().ok
    assert set(w.report().counts()) <= {"passed", "noted", "skipped"}
    assert all(one.reason.startswith("a watched training does not") for one in w.report().skipped)


def test_callable_and_ignore():
    found = []
    for on_finding in (found.append, "ignore"):
        with normdoctor.watch(net(dead=8), every=1, on_finding=on_finding) as w:
            train(w.model, 6, w)
    assert [finding.code for finding in found] == ["ND601"]


def test_training_is_the_same_as_unwatched():
    plain, watched = net(), net()
    train(plain, 7)
    with normdoctor.watch(watched, every=2) as w:
        train(watched, 7, w)
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_unobserved_steps_carry_few_hooks():
    """In steps that are not observed only the modes are followed, by hooks on the model and its norms."""
    model = net()
    seen = []
    with normdoctor.watch(model, every=3, on_finding="ignore") as w:
        for _ in range(7):
            seen.append(hooks_of(model))
            model(torch.randn(4, 8))
            w.step()
    few = 3
    assert [count > few for count in seen] == [True, False, False, True, False, False, True]
    assert min(seen) == few
    assert hooks_of(model) == 0


def test_hooks_are_gone_after_an_exception():
    model = net(dead=8)

    def interrupted():
        with normdoctor.watch(model):
            model(torch.randn(4, 8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hooks_of(model) == 0


class NoReads(TorchDispatchMode):
    """Raises where a value is read from the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a value was read"
        assert "nonzero" not in str(func), "a value was read"
        return func(*args, **(kwargs or {}))


def test_no_synchronization_in_a_step():
    model = net(dead=8)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w, NoReads():
        for _ in range(3):
            w.step(model(torch.randn(4, 8)).sum())
    with pytest.raises(AssertionError, match="a value was read"), NoReads():
        w.measurements()


def test_nothing_seen_is_not_healthy():
    with normdoctor.watch(net()) as w:
        pass
    report = w.report()
    outcomes = {result.code: result.outcome for result in report.results}
    assert outcomes.pop("ND506") == "passed"
    assert set(outcomes.values()) == {"skipped"}
    assert "no forward of the model was seen" in report.targets[0].notes


def test_loss_that_is_not_finite():
    with normdoctor.watch(net(), every=1, on_finding="ignore") as w:
        for value in (1.0, float("nan"), torch.tensor(float("inf"))):
            w.model(torch.randn(4, 8))
            w.step(value)
    assert "the loss was not finite in 2 of 3 steps" in w.report().targets[0].notes


@pytest.mark.parametrize("how", ["wrapper", "in place"])
def test_compiled_models(how):
    model = net(dead=8)
    call = torch.compile(model, backend="eager") if how == "wrapper" else model
    if how == "in place":
        model.compile(backend="eager")
    call(torch.randn(256, 8))  # compiled before the watch begins
    with normdoctor.watch(call, every=2, on_finding="ignore") as w:
        train(model, 9, w, call)
    assert w.report().findings[0].evidence["batches"] == 5
    from torch._dynamo.eval_frame import _stance

    assert _stance.stance == "default"


def test_a_loop_that_never_calls_step():
    with normdoctor.watch(net(), every=1, on_finding="ignore") as w:
        train(w.model, 3)
    assert "step() was never called, so only the first step could be observed" in w.report().targets[0].notes


def test_misuse():
    with pytest.raises(UsageError, match="module"):
        normdoctor.watch("model")
    with pytest.raises(UsageError, match="every"):
        normdoctor.watch(net(), every=0)
    with pytest.raises(UsageError, match="on_finding"):
        normdoctor.watch(net(), on_finding="halt")
    with pytest.raises(UsageError, match="budget"):
        normdoctor.watch(net(), budget=0)
    with pytest.raises(UsageError, match="optimizer"):
        normdoctor.watch(net(), "SGD")
    w = normdoctor.watch(net())
    with pytest.raises(UsageError, match="outside"):
        w.step()
    with w, pytest.raises(UsageError, match="already"):
        w.__enter__()
