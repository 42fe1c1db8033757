"""Two ranks of gloo: gradients, checks with data, shards, and ranks that get fewer batches or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.errors import UsageError

ROOT = Path(__file__).parent.parent.parent

HEAD = """
import contextlib, json, sys, time
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import normdoctor
from normdoctor.errors import NormDoctorError

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.norm, self.fc2 = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 16)
        self.late, self.head = nn.LayerNorm(16), nn.Linear(16, 4)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(16), requires_grad=False)
        with torch.no_grad():
            self.fc1.bias[:3] = -50.0

    def forward(self, x):
        h = F.relu(self.norm(self.fc1(x)))
        h = self.late(torch.tanh(self.fc2(h)) * self.frozen)
        return self.head(h)

def batches(rank, count=4):
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(32, 8, generator=generator) for _ in range(count)]

def loss_of(out):
    return (out - 1).square().mean()

def plain(found):
    return json.loads(json.dumps(found))

def checked(model, data, **more):
    report = normdoctor.check(model, torch.randn(4, 8), data=data, **more)
    told = [[f.code, str(f.severity), list(f.modules), f.message] for f in report.findings]
    return [told, [note for note in report.targets[0].notes if "measured" in note]]
"""

TWO = (
    HEAD
    + """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
found = {}

def trained(model, data, wrapper=None, optimizer=None, every=1, joined=False):
    wrapper = model if wrapper is None else wrapper
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1)
    with normdoctor.watch(wrapper, optimizer, every=every, budget=None, on_finding="ignore") as w:
        with wrapper.join() if joined else contextlib.nullcontext():
            for x in data:
                optimizer.zero_grad()
                loss_of(wrapper(x)).backward()
                optimizer.step()
                w.step()
    return w

net = Net()
ddp = DistributedDataParallel(net, find_unused_parameters=True, broadcast_buffers=False)
found["ddp"] = plain(trained(net, batches(rank, 20), ddp).measurements(all_ranks=True))

net = Net()
ddp = DistributedDataParallel(net, find_unused_parameters=True, broadcast_buffers=False)
w = trained(net, batches(rank, 4 - 2 * rank), ddp, joined=True)
found["fewer"] = plain(w.measurements(all_ranks=True))

w = trained(Net(), batches(0) if rank == 0 else [])
found["none"] = plain(w.measurements(all_ranks=True))
found["none: report"] = sorted({f.code for f in w.report(all_ranks=True).findings})
found["none at all"] = sorted(trained(Net(), []).measurements(all_ranks=True))

net = Net()
mesh = init_device_mesh("cpu", (2,))
for part in (net.fc1, net.norm, net.fc2, net.late, net.head, net.unused):
    fully_shard(part, mesh=mesh)
fully_shard(net, mesh=mesh)
found["shards"] = plain(trained(net, batches(rank)).measurements(all_ranks=True))

net = Net().eval()
found["check"] = checked(net, batches(rank), all_ranks=True, select=["ND6", "ND7"])
found["check: fewer"] = checked(net, batches(0)[2 * rank :], all_ranks=True, select=["ND6", "ND7"])
found["check: none"] = checked(net, batches(0) if rank == 0 else [], all_ranks=True, select=["ND6", "ND7"])

def raises():
    yield batches(0)[0]
    if rank:
        raise OSError("the disk is gone")

def odd():
    if rank:
        raise ValueError("no such split")
    return batches(0)

def refused(work):
    started = time.monotonic()
    try:
        work()
    except NormDoctorError as error:
        return [error.message, time.monotonic() - started]
    return ["nothing was raised", 0.0]

found["loader raises"] = refused(lambda: checked(net, raises, all_ranks=True))
found["loader cannot be made"] = refused(lambda: checked(net, odd, all_ranks=True))
found["misfit"] = refused(lambda: checked(net, [torch.randn(4, 8 + rank)], all_ranks=True))
found["no batch"] = refused(lambda: checked(net, [], all_ranks=True))
found["one value"] = refused(lambda: checked(Net(), [torch.randn(1, 8)], all_ranks=True))
found["no data"] = refused(lambda: checked(net, None, all_ranks=True))
found["synthetic"] = refused(lambda: checked(net, "synthetic", all_ranks=True))

other = Net().eval()
with torch.no_grad():
    other.norm.weight += 0.1 * rank
found["check: replicas"] = checked(other, batches(rank), all_ranks=True, select=["ND713"])[0]

synced = nn.SyncBatchNorm.convert_sync_batchnorm(Net())
if rank == 0:  # this rank alone: no other one has to take part
    found["synced"] = checked(synced, batches(0), select=["ND601", "ND608"])[1]

with open(sys.argv[3], "w") as file:
    json.dump(found, file)
dist.destroy_process_group()
"""
)

ONE = (
    HEAD
    + """
found = {}

def trained(steps):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with normdoctor.watch(net, optimizer, every=1, budget=None, on_finding="ignore") as w:
        for of_step in steps:
            optimizer.zero_grad()
            for x in of_step:
                (loss_of(net(x)) / len(of_step)).backward()
            optimizer.step()
            w.step()
    return plain(w.measurements())

found["both"] = trained(list(zip(batches(0, 20), batches(1, 20))))
found["few"] = trained(list(zip(batches(0), batches(1))))
found["first"] = trained([[x] for x in batches(0)])
net = Net().eval()
found["check"] = checked(net, batches(0) + batches(1), select=["ND6", "ND7"])
found["check: first"] = checked(net, batches(0), select=["ND6", "ND7"])
found["check: fewer"] = checked(net, batches(0) + batches(0)[2:], select=["ND6", "ND7"])
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""
)


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    (folder / "two.py").write_text(TWO)
    (folder / "one.py").write_text(ONE)
    started = [
        start(folder / "two.py", rank, folder / "store", folder / f"rank{rank}.json") for rank in range(2)
    ]
    started.append(start(folder / "one.py", folder / "one.json"))
    texts = []
    for process in started:
        try:
            texts.append(process.communicate(timeout=240)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            texts.append(f"no end after four minutes: {process.communicate()[0]}")
    assert all(process.returncode == 0 for process in started), "\n".join(texts)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("rank0", "rank1", "one")}


def assert_close(one, other, place="", rel=1e-5):
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_close(one[key], other[key], f"{place}/{key}", rel)
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{place}/{index}", rel)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=rel, abs=1e-7), place
    else:
        assert one == other, place


def without(figures, *names):
    return {key: {k: v for k, v in of.items() if k not in names} for key, of in figures.items()}


RANKS = ("rank0", "rank1")


@pytest.mark.parametrize("need", ["units", "attention", "gradients", "updates"])
@pytest.mark.parametrize("rank", RANKS)
def test_ranks_of_ddp_are_one_process(found, rank, need):
    both, one = found[rank]["ddp"][need], found["one"]["both"][need]
    # DistributedDataParallel finishes gradients in buckets, so their order need not be that of the layers.
    assert_close(without(both, "place"), without(one, "place"), need, rel=1e-4)
    if need == "gradients":
        assert both["fc1.weight"]["seen"] == 20
        assert both["fc1.weight"]["norms"][0] > 0
        assert (both["frozen"]["seen"], both["unused.weight"]["optimized"]) == (0, True)


@pytest.mark.parametrize("rank", RANKS)
def test_a_rank_with_fewer_batches(found, rank):
    fewer = found[rank]["fewer"]
    assert fewer["run"] == {"source": "watch", "batches": 6, "ranks": 2}
    assert fewer["units"]["fc1:linear"]["observations"] == 6 * 32
    weight = fewer["gradients"]["fc1.weight"]
    assert (weight["seen"], weight["looks"], weight["steps"]) == (4, 4, [0, 1, 2, 3])
    assert all(norm > 0 for norm in weight["norms"])


@pytest.mark.parametrize("rank", RANKS)
def test_a_rank_without_batches(found, rank):
    none = found[rank]["none"]
    for need in ("units", "gradients", "updates"):
        assert_close(none[need], found["one"]["first"][need], need)
    assert none["run"]["batches"] == 4
    assert found[rank]["none: report"] == found["rank0"]["none: report"]
    assert "units" not in found[rank]["none at all"]  # nothing seen is not healthy


@pytest.mark.parametrize("rank", RANKS)
def test_shards_add_up(found, rank):
    """Each rank holds half of each parameter; norms are those of the whole."""
    shards, one = found[rank]["shards"], found["one"]["few"]
    assert shards["gradients"].keys() == one["gradients"].keys()
    for name, figures in one["gradients"].items():
        whole = shards["gradients"][name]
        for key in ("seen", "zero", "bad", "shape", "norms", "steps"):
            assert_close(whole[key], figures[key], f"{name}/{key}", rel=1e-4)
        ratios = (shards["updates"][name][key] for key in ("ratios", "still"))
        assert_close(list(ratios), [one["updates"][name][key] for key in ("ratios", "still")], name, rel=1e-4)
    assert "ranks" in shards
    assert shards["ranks"] == {}


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(
    ("two", "one"), [("check", "check"), ("check: fewer", "check: fewer"), ("check: none", "check: first")]
)
def test_checks_on_ranks_are_one_check(found, rank, two, one):
    findings, notes = found[rank][two]
    assert findings == found["one"][one][0] != []
    count = {"check": 8, "check: fewer": 6, "check: none": 4}[two]
    assert notes == [f"measured over {count} batches of the data on 2 ranks"]


WORDS = {
    "loader raises": "the data could not be read after 1 batches: OSError: the disk is gone",
    "loader cannot be made": "no such split",
    "misfit": "the model raised RuntimeError on batch 0",
    "no batch": "expected batches of data to measure on, found none",
    "one value": "Expected more than 1 value per channel",
    "no data": "all_ranks=True needs data of each rank's own",
    "synthetic": "all_ranks=True needs data of each rank's own",
}


@pytest.mark.parametrize("kind", WORDS)
def test_where_one_rank_fails_all_say_so_at_once(found, kind):
    for rank in RANKS:
        message, seconds = found[rank][kind]
        assert WORDS[kind] in message
        assert seconds < 30
    if kind in ("loader raises", "loader cannot be made", "misfit"):
        assert found["rank0"][kind][0].startswith("rank 1 could not take part: ")


def test_replicas_are_compared_by_a_check(found):
    for rank in RANKS:
        ((code, severity, modules, _),) = found[rank]["check: replicas"]
        assert (code, severity, modules) == ("ND713", "error", ["norm"])


def test_a_check_waits_for_no_other_rank(found):
    assert found["rank0"]["synced"] == ["measured over 4 batches of the data"]


def test_one_process():
    with pytest.raises(UsageError, match="one process only"):
        normdoctor.check(nn.Linear(2, 2), data=[torch.ones(2, 2)], all_ranks=True)
    with pytest.raises(UsageError, match="expected True or False"):
        normdoctor.check(nn.Linear(2, 2), data=[torch.ones(2, 2)], all_ranks="yes")
