"""`normdoctor.recalibrate`: running statistics of the population, exactly."""

import copy
import socket
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

import normdoctor
from normdoctor.errors import NormDoctorError, UsageError


class Own(nn.Module):
    """A BatchNorm as a function, over buffers with names of one's own."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.moving_mean, self.moving_var, training=self.training)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(F.relu(self.norm(self.fc(x))))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x, scale):
        return self.norm(x * scale)


def conv():
    front = (nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    return nn.Sequential(*front, nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))


def dense():
    front = (nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    return nn.Sequential(*front, nn.ReLU(), nn.BatchNorm1d(6))


def functional():
    return nn.Sequential(nn.Linear(6, 6), Own(6), nn.ReLU(), nn.Linear(6, 4), Own(4))


def sequence():
    return nn.Sequential(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.SyncBatchNorm(5))


NETS = {
    "conv": (conv, (3, 8, 8)),
    "dense": (dense, (6,)),
    "functional": (functional, (6,)),
    "sequence": (sequence, (3, 9)),
    "reused": (Twice, (6,)),
}


def batches(shape, sizes=(32, 32, 2)):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, *shape, generator=generator) * 3 + 2 for n in sizes]


def pairs(model):
    """(running mean, running variance) of each norm."""
    for module in model.modules():
        names = list(module._buffers)
        if len(names) >= 2:
            yield module._buffers[names[0]], module._buffers[names[1]]


def population(model, data):
    """The same in float64 and by hand: what every norm takes in a training forward with dropout off."""
    twin = copy.deepcopy(model).double().train()
    seen: dict[int, list] = {}
    for module in twin.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        if isinstance(module, nn.SyncBatchNorm | nn.BatchNorm1d | nn.BatchNorm2d | Own):
            kept = seen.setdefault(id(module), [])
            module.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0].detach().clone()))
    for x in data:
        twin(x.double())
    for inputs in seen.values():
        whole = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], dim=1)
        yield whole.mean(1), whole.var(1, correction=0)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_equals_float64_population_statistics(name, training):
    torch.manual_seed(0)
    build, shape = NETS[name]
    model, data = build().train(training), batches(shape)
    expected = list(population(model, data))
    normdoctor.recalibrate(model, data)
    for (mean, variance), (wanted_mean, wanted_variance) in zip(pairs(model), expected, strict=True):
        torch.testing.assert_close(mean.double(), wanted_mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(variance.double(), wanted_variance, rtol=1e-6, atol=1e-6)


def test_everything_else_is_left_as_it_was():
    model, shape = NETS["dense"][0](), NETS["dense"][1]
    model[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], torch.get_rng_state()
    assert normdoctor.recalibrate(model, batches(shape)) == ("1.running_mean", "4.running_mean")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{place}.running_{what}" for place in (1, 4) for what in ("mean", "var")}
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layer_by_layer_does_not_depend_on_the_cut():
    build, shape = NETS["conv"]
    torch.manual_seed(0)
    first, second = build(), None
    second = copy.deepcopy(first)
    whole = torch.cat(batches(shape))
    normdoctor.recalibrate(first, list(whole.split(32)), layerwise=True)
    normdoctor.recalibrate(second, list(whole.split(5)), layerwise=True)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    first.eval()
    after = first[:4](whole)
    torch.testing.assert_close(first[4].running_mean, after.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first[4].running_var, after.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-5)


def test_batches_of_every_kind():
    x = torch.randn(64, 6)
    expected = x.mean(0)
    norm = nn.BatchNorm1d(6)
    for data in ([(x, 1)], torch.utils.data.DataLoader(x, 24), iter([x]), x):
        norm.reset_running_stats()
        normdoctor.recalibrate(norm, data)
        torch.testing.assert_close(norm.running_mean, expected, atol=1e-6, rtol=1e-6)
    model = Named()
    normdoctor.recalibrate(model, [{"x": x, "scale": 2.0}])
    torch.testing.assert_close(model.norm.running_mean, 2 * expected, atol=1e-6, rtol=1e-6)
    normdoctor.recalibrate(model, [x, x * 9], batches=1, batch_to_inputs=lambda batch: (batch, 3.0))
    torch.testing.assert_close(model.norm.running_mean, 3 * expected, atol=1e-6, rtol=1e-6)


def test_wrapped_models():
    norm = nn.BatchNorm1d(6)
    normdoctor.recalibrate(torch.compile(norm, backend="eager"), [torch.ones(4, 6)])
    assert torch.equal(norm.running_mean, torch.ones(6))


def test_nothing_to_do_and_bad_values():
    with pytest.raises(UsageError, match="nothing to recalibrate"):
        normdoctor.recalibrate(nn.Linear(2, 2), [torch.ones(2, 2)])
    with pytest.raises(UsageError, match="the data holds no batch"):
        normdoctor.recalibrate(nn.BatchNorm1d(2), [])
    with pytest.raises(UsageError, match="expected a module"):
        normdoctor.recalibrate("net", [])
    norm = nn.BatchNorm1d(2)
    with pytest.raises(NormDoctorError, match="not finite"):
        normdoctor.recalibrate(norm, [torch.full((4, 2), torch.nan)])
    with pytest.raises(UsageError, match="iterator"):
        normdoctor.recalibrate(norm, iter([torch.ones(4, 2)]), layerwise=True)
    assert torch.equal(norm.running_mean, torch.zeros(2))


def test_a_forward_that_raises_changes_nothing():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NormDoctorError, match="batch 1"):
        normdoctor.recalibrate(model, [torch.randn(4, 6), torch.randn(4, 7)])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.overrides._get_current_function_mode_stack() == []


def _rank(rank, port, folder, names):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name in names:
        torch.manual_seed(0)
        build, shape = NETS[name]
        model = build()
        if "SyncBatchNorm" in str(model):
            continue
        data = batches(shape)
        normdoctor.recalibrate(model, data[rank::2])
        torch.save(model.state_dict(), f"{folder}/{name}{rank}.pt")
        lone = build()
        lone.load_state_dict(model.state_dict())
        normdoctor.recalibrate(lone, data[:1] if rank == 0 else [data[1]])
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="needs gloo")
def test_two_ranks_equal_one_process(tmp_path):
    names = [name for name in NETS if name != "sequence"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_rank, args=(port, str(tmp_path), names), nprocs=2, start_method="spawn")
    for name in names:
        torch.manual_seed(0)
        build, shape = NETS[name]
        model = build()
        normdoctor.recalibrate(model, batches(shape))
        for rank in range(2):
            found = torch.load(tmp_path / f"{name}{rank}.pt")
            for key, value in model.state_dict().items():
                torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)
