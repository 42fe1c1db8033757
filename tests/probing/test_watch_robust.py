"""A watch around trainings of all kinds: nothing of them changes, and nothing is left behind."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import normdoctor


class Net(nn.Module):
    """In-place activations, dropout, BatchNorm, a dict for an output; checkpointing when asked."""

    def __init__(self, recompute=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 4)
        self.recompute = recompute

    def forward(self, x):
        x = F.relu_(self.bn(self.conv(x)))
        y = self.body(x) if self.recompute is None else checkpoint(self.body, x, use_reentrant=self.recompute)
        y = y + x
        return {"logits": self.head(self.drop(y.mean((2, 3))))}


def make(**kwargs):
    torch.manual_seed(0)
    return Net(**kwargs)


def run(model, steps=20, watch=None, call=None, *, amp=None, accumulate=1, layout=torch.contiguous_format):
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=amp is torch.float16)
    for _ in range(steps):
        for _ in range(accumulate):
            x = torch.randn(8, 3, 8, 8).to(memory_format=layout)
            with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
                logits = (model if call is None else call)(x)["logits"]
            loss = F.cross_entropy(logits.float(), torch.randint(4, (8,))) / accumulate
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        optimizer.zero_grad()
        if watch is not None:
            watch.step(loss)
    return gradients, {name: value.clone() for name, value in model.state_dict().items()}


WAYS = {
    "plain": {},
    "bfloat16": {"amp": torch.bfloat16},
    "float16": {"amp": torch.float16},
    "accumulated": {"accumulate": 3},
    "channels last": {"layout": torch.channels_last},
    "checkpointed": {"recompute": False},
    "reentrant": {"recompute": True},
}


@pytest.mark.parametrize("every", [1, 6])
@pytest.mark.parametrize("way", WAYS)
def test_bit_for_bit(way, every):
    settings = dict(WAYS[way])
    kwargs = {"recompute": settings.pop("recompute")} if "recompute" in settings else {}
    plain, watched = make(**kwargs), make(**kwargs)
    if "layout" in settings:
        plain, watched = (one.to(memory_format=torch.channels_last) for one in (plain, watched))
    gradients, weights = run(plain, **settings)
    with normdoctor.watch(watched, every=every, on_finding=lambda finding: None) as w:
        watched_gradients, watched_weights = run(watched, watch=w, **settings)
        w.report()
    for a, b in zip(gradients, watched_gradients, strict=True):
        assert torch.equal(a, b)
    for name, value in weights.items():
        assert torch.equal(value, watched_weights[name]), name
    figures = w.measurements()["gradients"]
    assert all(one["seen"] == one["looks"] > 0 for one in figures.values())
    assert w.report().targets[0].recorded or way == "reentrant"
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in watched.modules())
    assert not any(p._post_accumulate_grad_hooks for p in watched.parameters())


def test_a_report_in_the_middle_changes_nothing():
    plain, watched = make(), make()
    _, weights = run(plain)
    with normdoctor.watch(watched, every=1, on_finding="ignore") as w:

        class Told:
            @staticmethod
            def step(loss):
                w.step(loss)
                w.report()
                w.history()

        _, watched_weights = run(watched, watch=Told)
    assert all(torch.equal(value, watched_weights[name]) for name, value in weights.items())
    assert w.observed == 20


@pytest.mark.parametrize("how", ["wrapper", "in place"])
def test_compiled(how):
    model = make()
    call = torch.compile(model, backend="eager") if how == "wrapper" else model
    if how == "in place":
        model.compile(backend="eager")
    with normdoctor.watch(call, every=4, on_finding="ignore") as w:
        run(model, 9, w, call)
        model.eval()
        run(model, 6, w, call)
    found = w.measurements()
    assert found["gradients"]["head.weight"]["seen"] == 4
    assert found["batch_norm"]
    run_modes = found["modes"][":model"]
    if how == "wrapper":
        assert (run_modes["train_steps"], run_modes["eval_run"]) == (9, 6)
        assert "ND711" in {finding.code for finding in w.report().findings}
    else:
        assert any("compiled in place" in note for note in w.report().targets[0].notes)


@pytest.fixture
def group():
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(group):
    plain, inner = make(), make()
    _, weights = run(plain)
    wrapped = nn.parallel.DistributedDataParallel(inner)
    with normdoctor.watch(wrapped, every=3, on_finding="ignore") as w:
        _, watched = run(inner, watch=w, call=wrapped)
    assert all(torch.equal(value, watched[name]) for name, value in weights.items())
    found = w.measurements()
    assert all(one["seen"] == 7 for one in found["gradients"].values())
    assert found["modes"][":model"]["forwards"] == {"1": 20}


def test_fully_sharded(group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = make()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model.body, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with normdoctor.watch(model, every=2, on_finding="ignore") as w:
        torch.manual_seed(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(8):
            loss = F.cross_entropy(model(torch.randn(8, 3, 8, 8))["logits"], torch.randint(4, (8,)))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            w.step()
    found = w.measurements()
    assert all(one["seen"] == 4 for one in found["gradients"].values())
    assert all(max(one["ratios"]) > 0 for one in found["updates"].values() if one["kind"] == "weight")
    assert w.report().ok


def test_two_models_at_once():
    a, b = make(), make()
    with (
        normdoctor.watch(a, every=2, on_finding="ignore") as wa,
        normdoctor.watch(b, every=3, on_finding="ignore") as wb,
    ):
        optimizer = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=1e-2)
        for _ in range(12):
            x = torch.randn(8, 3, 8, 8)
            loss = (a(x)["logits"] - b(x.flip(0))["logits"]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wa.step(loss)
            wb.step(loss)
    assert (wa.observed, wb.observed) == (6, 4)
    for w in (wa, wb):
        assert all(one["seen"] == w.observed for one in w.measurements()["gradients"].values())
    from torch.optim import optimizer as module

    assert not module._global_optimizer_pre_hooks
    assert not module._global_optimizer_post_hooks


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["forward", "backward", "between"])
def test_exceptions(error, where):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items() if "bn" not in name}

    def fail(*_):
        raise error

    def interrupted():
        with normdoctor.watch(model, every=1):
            x = torch.randn(8, 3, 8, 8)
            if where == "forward":
                model.head.register_forward_pre_hook(fail)
            out = model(x)["logits"]
            if where == "backward":
                out.register_hook(fail)
            out.sum().backward()
            raise error

    with pytest.raises(error):
        interrupted()
    from torch.optim import optimizer as module

    assert not module._global_optimizer_pre_hooks
    left = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert left == ([fail] if where == "forward" else [])
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_copy_and_a_pickle_while_watched():
    model = make()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for one in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            one(torch.randn(8, 3, 8, 8))["logits"].sum().backward()
        run(model, 3, w)
    assert w.measurements()["modes"][":model"]["forwards"] == {"1": 3}


def test_nothing_is_seen_without_gradients():
    model = make()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(torch.randn(8, 3, 8, 8))
            w.step()
    report = w.report()
    assert any("no gradient was seen" in note for note in report.targets[0].notes)
    skipped = {result.code for result in report.skipped}
    assert {"ND801", "ND803", "ND805", "ND807"} <= skipped


def test_a_forward_that_cannot_be_recorded_is_no_obstacle():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x, how):
            return self.fc(x) * how.factor

    class How:
        factor = 2.0

    model = Odd()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(3):
            model(torch.randn(8, 4), How()).sum().backward()
            w.step()
    report = w.report()
    assert any("not recorded" in note and "How" in note for note in report.targets[0].notes)
    assert report.ok


def test_a_finding_has_the_line_of_the_call():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 16)
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return self.head(F.relu(self.fc(x)))

    model = Calls()
    with torch.no_grad():
        model.fc.bias[:12] = -1000.0
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for _ in range(6):
            model(torch.randn(256, 8)).sum().backward()
            w.step()
    (finding,) = [f for f in w.report().findings if f.code == "ND601"]
    assert finding.location is not None
    with open(__file__, encoding="utf-8") as file:
        line = file.read().splitlines()[finding.location.line - 1]
    assert "F.relu" in line


def test_without_numpy():
    """numpy is no dependency: a watch that judges in its midst, and a check with data, do without."""
    code = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "import torch, normdoctor\n"
        "from torch import nn\n"
        "model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 2))\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)\n"
        "with normdoctor.watch(model, optimizer, every=1) as w:\n"
        "    for _ in range(12):\n"
        "        loss = model(torch.randn(64, 8)).square().mean()\n"
        "        optimizer.zero_grad()\n"
        "        loss.backward()\n"
        "        optimizer.step()\n"
        "        w.step(loss)\n"
        "assert w.report().ok\n"
        "assert normdoctor.check(model, data=[torch.randn(64, 8) for _ in range(4)]).ok\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
