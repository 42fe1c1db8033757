"""What a watch says of loops that are written in other ways, or miss a call."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def batch(size=32):
    return torch.randn(size, 8), torch.randint(4, (size,))


def codes(report):
    return [finding.code for finding in report.findings]


def one(report, code):
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding


@pytest.mark.parametrize(("every", "micro"), [(10, 4), (6, 2), (2, 2), (1, 4)])
def test_gradients_are_accumulated_over_steps_of_the_loop(every, micro):
    """The optimizer's step falls between the looks; a look lasts until it comes."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    norms = {}
    with normdoctor.watch(model, optimizer, every=every, on_finding="ignore") as watch:
        for step in range(60):
            x, y = batch()
            (F.cross_entropy(model(x), y) / micro).backward()
            if step % micro == micro - 1:
                norms[step] = float(model[0].weight.grad.norm())
                optimizer.step()
                optimizer.zero_grad()
            watch.step()
    assert "ND805" not in codes(watch.report())
    gradients = watch.measurements()["gradients"]["0.weight"]
    assert gradients["optimized"]
    assert gradients["seen"] >= 4
    for step, norm in zip(gradients["steps"], gradients["norms"], strict=True):
        assert norm == pytest.approx(norms[step], rel=1e-4)  # of the whole sum, as the optimizer got it
    assert all(ratio > 0 for ratio in watch.measurements()["updates"]["0.weight"]["ratios"])


def test_accumulation_without_an_optimizer_of_torch():
    model = net()
    with normdoctor.watch(model, every=2, on_finding="ignore") as watch:
        for step in range(24):
            x, y = batch()
            F.cross_entropy(model(x), y).backward()
            if step % 2:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.01 * parameter.grad
                        parameter.grad = None
            watch.step()
    assert "ND805" not in codes(watch.report())


def test_hooks_on_optimizers_are_gone():
    from torch.optim import optimizer as home

    before = len(home._global_optimizer_pre_hooks), len(home._global_optimizer_post_hooks)
    model, other = net(), net()
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    with normdoctor.watch(model, every=3, on_finding="ignore") as watch:
        for _ in range(5):
            model(batch()[0]).sum().backward()
            foreign.step()
            watch.step()
    assert not watch._gradients.trained
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with normdoctor.watch(model, every=2, on_finding="ignore") as watch:
        for step in range(5):
            model(batch()[0]).sum().backward()
            if step == 3:
                optimizer.step()
            watch.step()
        assert watch._gradients.waits  # the look at step 5 waits for the next update
    assert (len(home._global_optimizer_pre_hooks), len(home._global_optimizer_post_hooks)) == before


def loop(way, steps=12):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with normdoctor.watch(model, optimizer, every=1, on_finding="ignore") as watch:
        for _ in range(steps):
            x, y = batch()
            with torch.set_grad_enabled(way != "no_grad"):
                logits = model(x)
            logits = logits.detach().requires_grad_() if way in ("detached", "no_grad") else logits
            loss = F.cross_entropy(logits, y)
            if way != "zero_grad between":
                optimizer.zero_grad()
            if way != "no backward":
                loss.backward()
            if way == "zero_grad between":
                optimizer.zero_grad()
            if way != "no step":
                optimizer.step()
            watch.step(loss)
    return watch.report()


@pytest.mark.parametrize("way", ["detached", "no_grad", "no backward", "zero_grad between"])
def test_an_optimizer_that_never_gets_a_gradient(way):
    report = loop(way)
    finding = one(report, "ND803")
    assert finding.modules == ("",)
    assert finding.evidence["parameters"] == 6
    assert ("zero_grad" in finding.help) == (way == "zero_grad between")
    assert ("backward()" in finding.help) == (way != "zero_grad between")


def test_an_optimizer_that_makes_no_step():
    report = loop("no step")
    finding = one(report, "ND805")
    assert finding.modules == ("",)
    assert len(finding.evidence["parameters"]) == 6
    assert "optimizer.step()" in finding.help


def test_a_complete_loop_is_silent():
    assert codes(loop("complete")) == []


def test_a_learning_rate_that_is_too_low_is_named():
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)
    with normdoctor.watch(model, optimizer, every=1, on_finding="ignore") as watch:
        for _ in range(12):
            loss = F.cross_entropy(model(batch()[0]), batch()[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    report = watch.report()
    assert "its learning rate is 1e-09" in one(report, "ND805").message
    small = [finding for finding in report.findings if finding.code == "ND804"]
    assert small
    assert all("change the learning rate" in finding.help for finding in small)


def trained(model, loss_of, steps=8, every=1, rate=1e-3, size=32):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with normdoctor.watch(model, optimizer, every=every, on_finding="ignore") as watch:
        for _ in range(steps):
            x, y = batch(size)
            loss = loss_of(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    return watch


def test_infinite_losses_without_a_bad_gradient_are_told():
    watch = trained(net(), lambda out, y: F.cross_entropy(out, y) + torch.tensor(0.0).log())
    finding = one(watch.report(), "ND608")
    losses = watch.measurements()["losses"]["loss"]
    assert (losses["steps"], losses["not_finite"], losses["first"]) == (8, 8, 1)
    assert finding.modules == ("",)
    assert "8 of 8 steps, first in step 1" in finding.message


def test_a_single_infinite_loss_is_a_note_only():
    watch = trained(net(), lambda out, y: F.cross_entropy(out, y) + (math.inf if next(turns) == 5 else 0))
    assert "ND608" not in codes(watch.report())


turns = iter(range(1000))


def test_bad_weights_are_not_the_fault_of_the_first_layer():
    """A loss of NaN makes the gradients, the weights and all later values NaN: that is one finding."""
    watch = trained(net(), lambda out, y: (out.relu().sum(1) * 0).log().mean() * 0 + out.mean(), size=300)
    report = watch.report()
    assert codes(report) == ["ND807"]
    assert "since step 1" in one(report, "ND807").message


def test_an_explosion_is_seen_in_the_look_before():
    watch = trained(net(), lambda out, y: (out * 1e5).pow(2).mean(), every=10, steps=21, rate=1.0)
    finding = one(watch.report(), "ND807")
    assert "at step 1 their norm was" in finding.message
    assert "clip_grad_norm_" in finding.help
    assert "ND608" not in codes(watch.report())


def test_what_died_in_a_short_training():
    """Alive at the first look, dead from the second on: twelve looks are enough."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with normdoctor.watch(model, optimizer, every=5, on_finding="ignore") as watch:
        for step in range(60):
            loss = F.cross_entropy(model(batch(256)[0]), batch(256)[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == 1:
                nn.init.constant_(model[2].bias, -100.0)
            watch.step(loss)
    assert one(watch.report(), "ND602").modules == ("3",)


def test_names_for_except_and_filter():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    nn.init.constant_(model[0].bias, -100.0)

    def train():
        with normdoctor.watch(model, every=1, on_finding="stop") as watch:
            for _ in range(20):
                model(batch(256)[0]).sum().backward()
                watch.step()

    with pytest.raises(normdoctor.StoppedError) as raised:
        train()
    assert raised.value.finding.code == "ND602"
    assert issubclass(normdoctor.NormDoctorWarning, UserWarning)
