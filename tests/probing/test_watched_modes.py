"""Faults of modes in a watched training: planted in nets of several styles, and what must stay silent."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.checkpoint import checkpoint

import normdoctor


def sequential():
    return nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(16, 2),
    )


class Convolutional(nn.Module):
    """Modules and functions; the input is folded into an image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def features(self, x):
        return F.relu(self.bn(self.conv(x.view(-1, 1, 2, 4))))

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class Act(nn.BatchNorm1d):
    """A subclass with the activation inside, as timm has it."""

    def forward(self, x):
        return F.relu(super().forward(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.norms = nn.ModuleList(Act(16) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(2))
        self.head = nn.Linear(16, 2)

    def features(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + norm(layer(x))
        return x

    def forward(self, x):
        return {"logits": self.head(self.features(self.stem(x)))}


class Functional(nn.Module):
    """Everything by functions, statistics in buffers of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 8) / 3)
        self.scale = nn.Parameter(torch.ones(16))
        self.head = nn.Parameter(torch.randn(2, 16) / 4)
        self.register_buffer("running_mean", torch.zeros(16))
        self.register_buffer("running_var", torch.ones(16))

    def forward(self, x):
        x = F.linear(x, self.weight)
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.scale, None, training=self.training
        ).relu()
        return F.linear(x, self.head)


NETS = [sequential, Convolutional, Residual, Functional]
each = pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__.lower())


def logits(model, x):
    found = model(x)
    return found["logits"] if isinstance(found, dict) else found


def batch(n=32):
    x = torch.randn(n, 8)
    return x, (x.sum(1) > 0).long()


class Loop:
    """A training that can be interrupted between its steps."""

    def __init__(self, model, every=1):
        torch.manual_seed(0)
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        self.watch = normdoctor.watch(model, every=every, on_finding="ignore")

    def step(self, forwards=1, times=1):
        for _ in range(times):
            self.optimizer.zero_grad()
            for _ in range(forwards):
                x, y = batch()
                F.cross_entropy(logits(self.model, x), y).backward()
            self.optimizer.step()
            self.watch.step()

    def codes(self):
        return {finding.code for finding in self.watch.report().findings}


def evaluate(model, batches=3):
    with torch.no_grad():
        for _ in range(batches):
            model(batch()[0])


@each
@pytest.mark.parametrize("every", [1, 7])
def test_evaluation_in_train_mode(make, every):
    loop = Loop(make(), every)
    with loop.watch:
        for _ in range(4):
            loop.model.eval()
            loop.model.train()  # a few lines further down, before the loop over the validation set
            evaluate(loop.model)
            loop.step(times=5)
    assert "ND710" in loop.codes()
    (finding,) = [f for f in loop.watch.report().findings if f.code == "ND710"]
    assert finding.evidence["evaluations"] == 4
    assert finding.evidence["forwards"] == 12


@each
def test_evaluation_in_eval_mode_is_silent(make):
    loop = Loop(make())
    with loop.watch:
        for _ in range(4):
            loop.model.train()
            loop.step(times=5)
            loop.model.eval()
            evaluate(loop.model)
    assert not loop.codes()


def test_evaluation_of_the_same_tensors_after_every_step():
    loop, x = Loop(sequential()), torch.randn(64, 8)
    with loop.watch:
        for _ in range(10):
            loop.step()
            with torch.no_grad():
                loop.model(x)
    assert "ND710" in loop.codes()


def test_evaluation_under_inference_mode_after_every_step():
    loop = Loop(sequential())
    with loop.watch:
        for _ in range(6):
            loop.step()
            with torch.inference_mode():
                loop.model(torch.randn(16, 8))
                loop.model(torch.randn(16, 8))
    assert "ND710" in loop.codes()


def test_only_the_last_evaluation_is_in_train_mode():
    loop = Loop(sequential())
    with loop.watch:
        loop.step(times=8)
        evaluate(loop.model)
    assert "ND710" in loop.codes()


def test_dropout_alone_in_an_evaluation():
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    loop = Loop(model)
    with loop.watch:
        for _ in range(3):
            loop.step(times=4)
            evaluate(model)
    assert loop.codes() == {"ND710"}


@each
def test_evaluation_with_gradients_that_nobody_asks_for(make):
    """Neither eval() nor no_grad()."""
    for mode, expected in ((True, {"ND710"}), (False, set())):
        loop = Loop(make())
        with loop.watch:
            for _ in range(3):
                loop.model.train()
                loop.step(times=5)
                loop.model.train(mode)
                for _ in range(3):
                    logits(loop.model, batch()[0]).argmax(1)
        assert loop.codes() == expected


def test_forwards_without_backward_that_are_no_evaluation():
    many, single = Loop(sequential()), Loop(sequential())
    with many.watch:
        for _ in range(8):  # targets of a consistency loss, detached
            many.model(batch()[0]).detach()
            many.model(batch()[0]).detach()
            many.step()
    with single.watch:
        for _ in range(3):  # a look at the outputs, and a batch that is skipped
            single.step(times=5)
            single.model(batch()[0])
    accumulated = Loop(Residual())
    with accumulated.watch:
        for _ in range(3):
            accumulated.step(times=5)
            accumulated.step(forwards=6)
    for loop in (many, single, accumulated):
        assert "ND710" not in loop.codes()


def test_what_runs_without_gradients_and_is_no_evaluation():
    loop = Loop(sequential())
    with loop.watch:
        for _ in range(8):  # a pseudo-label or a made-up sample before each step
            evaluate(loop.model, 1)
            loop.step()
    assert "ND710" not in loop.codes()


def alone(model, evaluation):
    """The codes of a watch of nothing but an evaluation."""
    torch.manual_seed(0)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        evaluation(model)
    return {finding.code for finding in w.report().findings}


def attack(model, steps=4, backward=False):
    """Projected gradient ascent on the input."""
    x, y = batch()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(logits(model, x), y)
        if backward:
            loss.backward()
        gradient = x.grad if backward else torch.autograd.grad(loss, x)[0]
        x = x + 0.01 * gradient.sign()


@each
def test_evaluation_of_a_loaded_model_in_train_mode(make):
    assert alone(make(), evaluate) == {"ND710"}
    assert not alone(make().eval(), evaluate)


@each
@pytest.mark.parametrize("backward", [True, False])
def test_attack_on_a_loaded_model_in_train_mode(make, backward):
    assert "ND710" in alone(make(), lambda model: attack(model, backward=backward))
    assert "ND710" not in alone(make().eval(), lambda model: attack(model, backward=backward))


def test_what_is_no_evaluation_though_nothing_is_trained():
    def recalibrate(model):
        evaluate(model)
        model.eval()
        evaluate(model)

    def several_passes_of_one_batch(model):
        x = batch()[0]
        with torch.no_grad():
            torch.stack([model(x) for _ in range(8)])

    def samples(model):
        with torch.no_grad():
            for _ in range(4):
                model(torch.randn(8, 4))

    def a_look_at_the_shapes(model):
        with torch.no_grad():
            model(batch()[0])

    dropout = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    generator = nn.Sequential(nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
    assert not alone(sequential(), recalibrate)
    assert not alone(sequential(), lambda model: update_bn([batch()[0] for _ in range(4)], model))
    assert not alone(dropout, several_passes_of_one_batch)
    assert alone(dropout, evaluate) == {"ND710"}
    assert not alone(generator, samples)
    assert not alone(sequential(), a_look_at_the_shapes)


def test_a_teacher_in_train_mode_is_silent():
    student, teacher = sequential(), sequential()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    with normdoctor.watch(teacher, every=1, on_finding="ignore") as w:
        for _ in range(8):
            x = batch()[0]
            with torch.no_grad():
                target = teacher(x).softmax(1)
            optimizer.zero_grad()
            F.cross_entropy(student(x), target).backward()
            optimizer.step()
            w.step()
    assert not w.report().findings


def test_training_without_step_that_takes_gradients_of_the_input_is_silent():
    """The user forgot `w.step()`: forces of a potential, penalties."""
    model = sequential()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            x = torch.randn(32, 8, requires_grad=True)
            (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            optimizer.zero_grad()
            force.square().mean().backward()
            optimizer.step()
    assert "ND710" not in {finding.code for finding in w.report().findings}


def test_update_bn_is_silent():
    loop = Loop(sequential())
    with loop.watch:
        loop.step(times=8)
        update_bn([batch()[0] for _ in range(4)], loop.model)
    assert not loop.codes()


def test_recalibration_before_an_evaluation_is_silent():
    loop = Loop(sequential())
    with loop.watch:
        for _ in range(3):
            loop.model.train()
            loop.step(times=5)
            evaluate(loop.model)  # running statistics of the weights as they are now
            loop.model.eval()
            evaluate(loop.model)
    assert not loop.codes()


def test_dropout_switched_on_by_intent_is_silent():
    loop = Loop(sequential())
    with loop.watch:
        for _ in range(3):
            loop.model.train()
            loop.step(times=4)
            loop.model.eval()
            loop.model[3].train()
            evaluate(loop.model, 5)
    assert not loop.codes()


def test_gan_is_silent():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
    critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    of_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    of_d = torch.optim.Adam(critic.parameters(), lr=1e-3)
    noise = torch.randn(32, 4)
    with (
        normdoctor.watch(generator, every=1, on_finding="ignore") as wg,
        normdoctor.watch(critic, every=1, on_finding="ignore") as wd,
    ):
        for step in range(20):
            with torch.no_grad():
                made = generator(torch.randn(32, 4))
            loss = critic(made).mean() - critic(torch.randn(32, 8)).mean()
            of_d.zero_grad()
            loss.backward()
            of_d.step()
            loss = -critic(generator(torch.randn(32, 4))).mean()
            of_g.zero_grad()
            loss.backward()
            of_g.step()
            wg.step()
            wd.step()
            if step % 5 == 0:
                with torch.no_grad():
                    generator(noise)  # samples to look at
    for w in (wg, wd):
        assert not [f for f in w.report().findings if f.severity != "info"]


@each
@pytest.mark.parametrize("every", [1, 4])
def test_training_in_eval_mode(make, every):
    loop = Loop(make(), every)
    with loop.watch:
        loop.model.train()  # once only
        for _ in range(3):
            loop.step(times=4)
            loop.model.eval()
            evaluate(loop.model)
    (finding,) = [f for f in loop.watch.report().findings if f.code == "ND711"]
    assert finding.evidence["eval_run"] == 8
    assert finding.evidence["train_steps"] == 4


@each
def test_evaluations_in_the_middle_of_epochs_leave_eval_mode_on(make):
    """The next epoch calls train() again, also the last one."""
    loop = Loop(make())
    with loop.watch:
        for _ in range(3):
            loop.model.train()
            loop.step(times=4)
            loop.model.eval()
            evaluate(loop.model)
            loop.step(times=3)
        loop.model.train()
        loop.step(times=4)
    (finding,) = [f for f in loop.watch.report().findings if f.code == "ND711"]
    assert finding.evidence["lapsed"] == 9
    assert "3 times" in finding.message


def test_phases_in_eval_mode_on_purpose_are_silent():
    """No evaluation comes before them."""
    loop = Loop(sequential())
    with loop.watch:
        for _ in range(3):
            loop.model.train()
            loop.step(times=4)
            loop.model.eval()
            loop.step(times=4)
        loop.model.train()
        loop.step(times=4)
    assert "ND711" not in loop.codes()


class Wrapper(nn.Module):
    """Holds the net that an evaluation sets to eval mode, and stays in train mode itself."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@each
def test_a_net_inside_of_a_wrapper_is_left_in_eval_mode(make):
    loop = Loop(Wrapper(make()))
    with loop.watch:
        loop.step(times=5)
        loop.model.net.eval()
        evaluate(loop.model)
        loop.step(times=5)
    assert "ND711" in loop.codes()


def test_a_part_in_eval_mode_and_a_net_that_never_trained_are_silent():
    part, whole = Loop(sequential()), Loop(Wrapper(sequential().eval()))
    with part.watch:
        part.step(times=5)
        part.model.eval()
        evaluate(part.model)
        part.model.train()
        part.model[1].eval()  # from here on its statistics are frozen
        part.step(times=5)
    with whole.watch:
        whole.step(times=5)
    assert not part.codes()
    assert not whole.codes()


def test_evaluated_before_the_first_step():
    loop = Loop(sequential())
    with loop.watch:
        loop.model.eval()
        evaluate(loop.model)
        loop.step(times=4)
    assert "ND711" in loop.codes()


def test_training_in_eval_mode_with_dropout_only():
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    loop = Loop(model)
    with loop.watch:
        loop.step(times=4)
        model.eval()
        loop.step(times=4)
    assert loop.codes() == {"ND711"}


def test_norms_that_are_frozen_on_purpose_are_silent():
    loop = Loop(Residual())
    with loop.watch:
        loop.step(times=4)
        for norm in loop.model.norms:  # late in the training, as detection and quantization do
            norm.eval()
        loop.step(times=6)
    assert "ND711" not in loop.codes()


def test_a_model_that_never_was_in_train_mode_is_silent():
    loop = Loop(sequential().eval())
    with loop.watch:
        loop.step(times=6)
    assert "ND711" not in loop.codes()


def test_frozen_parameters_whose_statistics_come_alive_again():
    model = sequential()
    model[1].requires_grad_(False).eval()
    loop = Loop(model)
    with loop.watch:
        for _ in range(2):
            model.train()  # the freeze is not applied again
            loop.step(times=3)
            model.eval()
            evaluate(model)
    assert "ND506" in loop.codes()


def test_frozen_parameters_in_eval_mode_are_silent():
    model = sequential()
    model[1].requires_grad_(False)
    loop = Loop(model)
    with loop.watch:
        for _ in range(2):
            model.train()
            model[1].eval()
            loop.step(times=3)
            model.eval()
            evaluate(model)
    assert not loop.codes()


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.inner = inner
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        return checkpoint(self.run, x, use_reentrant=self.reentrant)

    def run(self, x):
        return logits(self.inner, x)


@each
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_updates_twice(make, reentrant):
    model = Checkpointed(make(), reentrant)
    loop = Loop(model)
    with loop.watch:
        loop.step(times=5)
    found = [f for f in loop.watch.report().findings if f.code == "ND706"]
    assert found
    assert all(path.startswith("inner") for finding in found for path in finding.modules)


def test_checkpointing_without_moving_statistics_is_silent():
    inner = sequential()
    inner[1] = nn.GroupNorm(4, 16)
    still = sequential()
    still[1].momentum = 0
    for one in (inner, still, sequential().eval()):
        loop = Loop(Checkpointed(one, reentrant=False))
        if not one.training:
            loop.model.inner.eval()
        with loop.watch:
            loop.step(times=5)
        assert "ND706" not in loop.codes()


@each
@pytest.mark.parametrize("copied", [False, True])
def test_second_pass_on_the_same_batch(make, copied):
    loop = Loop(make())
    with loop.watch:
        for _ in range(6):
            x, y = batch()
            loss = F.cross_entropy(logits(loop.model, x), y)
            again = x.clone() if copied else x
            loss = loss + 0.1 * logits(loop.model, again).pow(2).mean()
            loop.optimizer.zero_grad()
            loss.backward()
            loop.optimizer.step()
            loop.watch.step(loss)
    assert "ND706" in loop.codes()


@each
def test_accumulation_is_no_second_pass(make):
    loop = Loop(make())
    with loop.watch:
        loop.step(forwards=4, times=6)
    assert "ND706" not in loop.codes()


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = sequential()

    def forward(self, x):
        return self.tower(x) + self.tower(-x)


def test_a_shared_layer_is_no_second_pass():
    loop = Loop(Siamese())
    with loop.watch:
        loop.step(times=6)
    assert "ND706" not in loop.codes()


@pytest.mark.parametrize("make", [sequential, Convolutional, Residual, Functional])
def test_accumulation_of_small_batches(make):
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for size, expected in ((4, True), (256, False)):
        with normdoctor.watch(model, every=1, on_finding="ignore") as w:
            for _ in range(6):
                for _ in range(4):
                    x, y = batch(size)
                    F.cross_entropy(logits(model, x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                w.step()
        codes = {f.code for f in w.report().findings}
        assert ("ND709" in codes) == expected


class Wide(nn.Module):
    """A critic of a net: one score a sample."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return logits(self.inner, x)[:, :1]


@each
@pytest.mark.parametrize("penalty", ["wgan", "r1", "none", "saliency"])
def test_gradient_penalty(make, penalty):
    torch.manual_seed(0)
    model = Wide(make())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    with normdoctor.watch(model, every=3, on_finding="ignore") as w:
        for _ in range(6):
            x = torch.randn(16, 8)
            if penalty == "wgan":
                mixed = (0.5 * x + 0.5 * torch.randn(16, 8)).requires_grad_()
            else:
                mixed = x.requires_grad_(penalty != "none")
            score = model(mixed)
            loss = score.mean()
            if penalty != "none":
                double = penalty != "saliency"
                (slope,) = torch.autograd.grad(score.sum(), mixed, create_graph=double, retain_graph=True)
                loss = loss + slope.pow(2).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    assert ("ND808" in {f.code for f in w.report().findings}) == (penalty in ("wgan", "r1"))


def test_penalty_in_eval_mode_and_second_derivatives_by_weights_are_silent():
    model = Wide(sequential())
    model.inner[1].eval()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            x = torch.randn(16, 8, requires_grad=True)
            (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            slope.pow(2).mean().backward()
            w.step()
    assert "ND808" not in {f.code for f in w.report().findings}
    model = Wide(sequential())
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):  # as in meta-learning
            weights = list(model.parameters())
            inner = torch.autograd.grad(model(torch.randn(16, 8)).pow(2).sum(), weights, create_graph=True)
            sum(one.pow(2).sum() for one in inner).backward()
            w.step()
    assert "ND808" not in {f.code for f in w.report().findings}


def test_a_copy_made_during_the_watch_is_free():
    loop = Loop(Residual())
    with loop.watch:
        loop.step()
        average = copy.deepcopy(loop.model)
        before = loop.watch.measurements()["modes"][":model"]["forwards"]
        evaluate(average)
        average(batch()[0])
        assert loop.watch.measurements()["modes"][":model"]["forwards"] == before
        loop.step(times=4)
    assert not loop.codes()


def test_parts_that_are_called_by_themselves():
    loop = Loop(Residual())
    with loop.watch:
        for _ in range(4):
            for _ in range(4):
                x, y = batch()
                loss = F.cross_entropy(loop.model.head(loop.model.features(loop.model.stem(x))), y)
                loop.optimizer.zero_grad()
                loss.backward()
                loop.optimizer.step()
                loop.watch.step()
            with torch.no_grad():
                for _ in range(3):
                    loop.model.features(loop.model.stem(batch()[0]))
    assert "ND710" in loop.codes()
    run = loop.watch.measurements()["modes"][":model"]
    assert run["forwards"] == {"1": 16}
    assert run["blind_forwards"] == 12
