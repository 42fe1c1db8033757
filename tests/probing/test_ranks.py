"""Two processes of gloo: what they observe together is what one process would, and replicas are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import normdoctor
from normdoctor.errors import UsageError
from normdoctor.probing import ranks

ROOT = Path(__file__).parent.parent.parent

HEAD = """
import json, os, sys
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import normdoctor
from normdoctor.probing import ranks

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.norm = nn.Linear(8, 16), nn.BatchNorm1d(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.fc2 = nn.Linear(16, 4)
        with torch.no_grad():
            self.fc1.bias[:3] = -50.0

    def forward(self, x):
        h = F.relu(self.norm(self.fc1(x)))
        h = h.view(-1, 8, 16)
        h = h + self.attention(h, h, h)[0]
        return self.fc2(torch.tanh(h))

def batches(rank):
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(64, 8, generator=generator) for _ in range(3)]

def plain(found):
    return json.loads(json.dumps(found))
"""

TWO = (
    HEAD
    + """
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
found = {}
net = DistributedDataParallel(Net(), broadcast_buffers=False)
with normdoctor.watch(net, every=1, budget=None, on_finding="ignore") as w:
    for x in batches(rank):
        net(x).square().mean().backward()
        w.step()
found["own"] = plain(w.measurements())
found["all"] = plain(w.measurements(all_ranks=True))
report = w.report(all_ranks=True)
found["codes"] = [[f.code, str(f.severity), f.modules[0]] for f in report.findings if f.code == "ND713"]

def judged(model, wrapper=None):
    figures = ranks.replicas(model, getattr(wrapper, "broadcast_buffers", None))
    from normdoctor.facts import Facts
    from normdoctor.config import Settings
    from normdoctor.running import check_facts
    facts = Facts(target="net", measurements={"ranks": figures, "run": {"source": "watch", "batches": 1}})
    report = check_facts([facts], Settings(select=("ND713",)))
    return [[f.code, str(f.severity), f.modules[0], f.evidence["tensors"]] for f in report.findings]

same = Net()
found["same"] = judged(same)
drifted = Net()
with torch.no_grad():
    drifted.norm.weight += rank * 0.01
    drifted.norm.running_mean += rank
found["parameters"] = judged(drifted)
buffers = Net()
buffers.norm.running_var += rank
found["buffers"] = judged(buffers)
found["broadcast"] = judged(buffers, DistributedDataParallel(Net(), broadcast_buffers=True))
other = Net() if rank else nn.BatchNorm1d(16)
found["other models"] = judged(other)
nans = Net()
nans.norm.running_var[0] = float("nan")
found["nan on both"] = bool(judged(nans))
if rank:
    nans.norm.running_var[1] = float("nan")
found["nan on one"] = bool(judged(nans))
with open(sys.argv[3], "w") as file:
    json.dump(found, file)
dist.destroy_process_group()
"""
)

ONE = (
    HEAD
    + """
net = Net()
with normdoctor.watch(net, every=1, budget=None, on_finding="ignore") as w:
    for rank in range(2):
        for x in batches(rank):
            net(x).square().mean().backward()
            w.step()
with open(sys.argv[1], "w") as file:
    json.dump(plain(w.measurements()), file)
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
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "two.py").write_text(TWO)
    (folder / "one.py").write_text(ONE)
    started = [
        start(folder / "two.py", rank, folder / "store", folder / f"rank{rank}.json") for rank in range(2)
    ]
    started.append(start(folder / "one.py", folder / "one.json"))
    for process in started:
        text, _ = process.communicate(timeout=240)
        assert process.returncode == 0, text
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("rank0", "rank1", "one")}


def assert_close(one, other, place=""):
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_close(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, f"{place}/{index}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-8), place
    else:
        assert one == other, place


@pytest.mark.parametrize("need", ["units", "attention"])
def test_two_ranks_see_what_one_process_sees(found, need):
    assert found["one"][need]
    for rank in ("rank0", "rank1"):
        assert_close(found[rank]["all"][need], found["one"][need], need)
        assert found[rank]["all"][need] != found[rank]["own"][need]


def test_statistics_of_batch_norms(found):
    """Running statistics are each rank's own; what the norm takes is merged."""
    kept = ("n", "samples", "std", "unit_mean", "unit_std", "batch_sizes", "positions", "units")
    (one,) = found["one"]["batch_norm"].values()
    for rank in ("rank0", "rank1"):
        (both,) = found[rank]["all"]["batch_norm"].values()
        assert both["batch_sizes"] == one["batch_sizes"] == {"64": 6}
        assert_close(*({key: site[key] for key in kept if key in site} for site in (both, one)))


def test_the_run_counts_all_batches(found):
    assert found["rank0"]["all"]["run"]["batches"] == found["one"]["run"]["batches"] == 6


def test_buffers_that_are_not_broadcast(found):
    assert found["rank0"]["codes"] == found["rank1"]["codes"] == [["ND713", "warning", "norm"]]


def test_replicas(found):
    for rank in ("rank0", "rank1"):
        one = found[rank]
        assert one["same"] == one["broadcast"] == one["other models"] == []
        assert one["parameters"] == [["ND713", "error", "norm", ["norm.weight"]]]
        assert one["buffers"] == [["ND713", "warning", "norm", ["norm.running_var"]]]
        assert (one["nan on both"], one["nan on one"]) == (False, True)


def test_one_process_has_nothing_to_gather():
    assert ranks.size() == 1
    assert ranks.replicas(nn.BatchNorm1d(3)) == {}
    with normdoctor.watch(nn.Linear(2, 2), on_finding="ignore") as w:
        w.model(torch.ones(2, 2))
        w.step()
    with pytest.raises(UsageError, match="one process only"):
        w.report(all_ranks=True)


def test_figures_of_joined_collectors_are_those_of_one():
    from normdoctor.probing.hooks import to_host
    from normdoctor.probing.plan import planned
    from normdoctor.probing.probe import probe

    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16)
    model = nn.Sequential(nn.Linear(8, 16), norm, nn.ReLU(), nn.Linear(16, 4)).eval()
    data = [torch.randn(32, 8) for _ in range(4)]
    whole = probe(model, data, planned())
    parts = [planned(), planned()]
    for place, collectors in enumerate(parts):
        probe(model, data[2 * place : 2 * place + 2], collectors)
    for first, second in zip(*parts, strict=True):
        if not isinstance(first, ranks.Joinable):
            continue
        joined = first.joined([first.packed(), second.packed()])
        values = to_host(joined.tensors()) if joined.tensors() else []
        assert_close(json.loads(json.dumps(joined.read(values))), json.loads(json.dumps(whole[first.need])))


@pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")
def test_the_example_runs_under_torchrun():
    process = start(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", ROOT / "examples/watch_ddp.py"
    )
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    assert "watched 4 of 8 steps" in text
    assert "warning[" not in text
    assert "error[" not in text
