"""SyncBatchNorm on ranks of gloo: what one process makes of the concatenated batch."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from normdoctor import layers

#: Samples on each rank, step by step: equal, unequal, none.
PLANS = {
    2: [(3, 3), (5, 1), (4, 0), (0, 2), (0, 0), (1, 1)],
    4: [(2, 2, 2, 2), (1, 4, 2, 3), (0, 3, 0, 1), (1, 0, 0, 0), (0, 0, 0, 0)],
}
SHAPE = (6, 3, 2)

WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from normdoctor import layers

torch.set_num_threads(1)
folder, rank = sys.argv[1], 0
while rank < 3 and os.fork() == 0:  # each rank starts the next one, which saves importing torch again
    rank += 1
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=4)
pair = dist.new_group([0, 1])
found = {}
for number, (world, options, dtype, steps) in enumerate(torch.load(f"{folder}/work.pt")):
    if rank >= world:
        continue
    layer = layers.SyncBatchNorm(6, process_group=pair if world == 2 else None, **options).to(dtype)
    if layer.weight is not None:
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, 6))
    for step, (parts, gradients, residuals) in enumerate(steps):
        x = parts[rank].to(dtype).clone().requires_grad_()
        layer.zero_grad()
        residual = residuals[rank].to(dtype).clone().requires_grad_()
        y = layer(x, residual)
        y.backward(gradients[rank].to(dtype))
        state = {k: v.clone() for k, v in layer.state_dict().items()}
        sums = {k: p.grad.clone() for k, p in layer.named_parameters()}
        found[number, step] = (y.detach(), x.grad, residual.grad, sums, state, layer.statistics.var)
torch.save(found, f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
code = os.waitstatus_to_exitcode(os.wait()[1]) if rank < 3 else 0
sys.stdout.flush()
os._exit(code)
"""

SETTINGS = [
    ({}, torch.float64),
    ({}, torch.float32),
    ({"activation": "silu"}, torch.float64),
    ({"momentum": None}, torch.float64),
    ({"affine": False}, torch.float64),
    ({"track_running_stats": False}, torch.float64),
    ({"bias": False, "eps": 1e-2}, torch.float64),
    ({}, torch.bfloat16),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What was given to four ranks, and to a group of two of them, and what each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    generator = torch.Generator().manual_seed(0)

    def parts(counts):
        # Unlike on each rank, so that local statistics would be seen.
        return [
            torch.randn(n, *SHAPE, generator=generator) * (1 + rank) + rank for rank, n in enumerate(counts)
        ]

    plans = {
        world: [tuple(parts(counts) for _ in range(3)) for counts in plan] for world, plan in PLANS.items()
    }
    work = [(world, *setting, plan) for world, plan in plans.items() for setting in SETTINGS]
    torch.save(work, folder / "work.pt")
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, str(folder / "worker.py")]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return work, [torch.load(folder / f"rank{rank}.pt") for rank in range(4)]


@pytest.mark.parametrize("world", sorted(PLANS))
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_equals_one_process(ranks, number, world):
    work, found = ranks
    number += sorted(PLANS).index(world) * len(SETTINGS)
    _, options, dtype, steps = work[number]
    layer = layers.BatchNorm2d(6, backend="reference", **options).double()
    if layer.weight is not None:
        with torch.no_grad():
            layer.weight.copy_(torch.linspace(0.5, 2, 6))
    bound = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2.0**-7}[dtype]

    def close(value, right):
        scale = max(1.0, right.abs().max().item()) if right.numel() else 1.0
        torch.testing.assert_close(value.double(), right, rtol=0, atol=bound * scale, check_dtype=False)

    for step, given in enumerate(steps):
        x, gradient, residual = (torch.cat(parts).to(dtype).double() for parts in given)
        x.requires_grad_()
        residual.requires_grad_()
        layer.zero_grad()
        y = layer(x, residual)
        y.backward(gradient)
        results = [of_rank[number, step] for of_rank in found[:world]]
        for place, right in enumerate((y.detach(), x.grad, residual.grad)):
            close(torch.cat([result[place] for result in results]), right)
            assert all(result[place].dtype == dtype for result in results)
        for name, parameter in layer.named_parameters():
            close(sum(result[3][name].double() for result in results), parameter.grad)
        for name, value in layer.named_buffers():
            assert all(torch.equal(result[4][name], results[0][4][name]) for result in results)
            close(results[0][4][name], value.double())
        if len(x):
            assert all(torch.equal(result[5], results[0][5]) for result in results)
            close(results[0][5], x.detach().var((0, 2, 3), correction=0))


def test_alone_it_is_batch_norm():
    own, theirs = layers.SyncBatchNorm(6), nn.BatchNorm2d(6)
    x = torch.randn(4, *SHAPE)
    for _ in range(2):
        torch.testing.assert_close(own(x), theirs(x))
    torch.testing.assert_close(own.running_var, theirs.running_var)
    torch.testing.assert_close(own.eval()(x), theirs.eval()(x))
    assert isinstance(own, nn.SyncBatchNorm)


def test_conversion_keeps_the_tensors():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, eps=1e-3, momentum=0.2),
        nn.Sequential(layers.BatchNorm2d(4, activation="relu")),
    ).eval()
    kept = [p.data_ptr() for p in net.parameters()]
    x = torch.randn(2, 3, 5, 5)
    right = net(x)
    converted = layers.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[1], layers.SyncBatchNorm)
    assert converted[2][0].activation == "relu"
    assert (converted[1].eps, converted[1].momentum, converted[1].training) == (1e-3, 0.2, False)
    assert [p.data_ptr() for p in converted.parameters()] == kept
    torch.testing.assert_close(converted(x), right)


@pytest.mark.parametrize("shape", [(4,), (2, 0, 3)])
def test_refusals_are_torchs(shape):
    for cls in (layers.SyncBatchNorm, nn.SyncBatchNorm):
        with pytest.raises(ValueError, match=r"at least 2D|non-zero"):
            cls(4)(torch.randn(shape))
