"""A training on two ranks, by processes that run this module: `python -m planted.replicas RANK FOLDER`."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import normdoctor
from normdoctor.findings import Finding

from .scenes import NORM, Trained, judged, logits

ROOT = Path(__file__).parents[3]


class Replicated(Trained):
    """Watched on two ranks under DistributedDataParallel; on one of them a norm may drift."""

    steps, drifting = 4, ""

    def __init__(self, net: type[nn.Module]) -> None:
        super().__init__(net)
        if net is NORM.Sequence:  # SyncBatchNorm needs GPUs there
            self.model.norms["c"] = nn.BatchNorm1d(24)

    def findings(self) -> Sequence[Finding]:
        found, text = both_ranks()
        assert found, text
        return found[f"{self.net.__name__} {self.drifting}"]

    def of_rank(self, rank: int) -> Sequence[Finding]:
        """What a rank finds."""
        net = DistributedDataParallel(self.model)
        torch.manual_seed(rank)
        optimizer = self.optimizer()
        with normdoctor.watch(net, optimizer, every=1, on_finding="ignore") as watch:
            for _ in range(self.steps):
                x, y = self.batch()
                loss = F.cross_entropy(logits(net(x)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if self.drifting:
                    with torch.no_grad():
                        next(self.model.get_submodule(self.drifting).parameters()).add_(0.01 * rank)
                watch.step(loss.detach())
        return judged(watch.report(all_ranks=True))


@functools.cache
def both_ranks() -> tuple[dict[str, list[Finding]], str]:
    """What the first rank finds in each net, healthy and not, by processes that are started once.

    Nothing where one failed; and what they printed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "planted.replicas", str(rank), folder],
                cwd=Path(__file__).parents[1], env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for rank in range(2)
        ]  # fmt: skip
        printed = "\n".join(process.communicate(timeout=240)[0] for process in started)
        if any(process.returncode for process in started):
            return {}, printed
        found = Path(folder, "rank0.json").read_bytes()
    return msgspec.json.decode(found, type=dict[str, list[Finding]]), printed


def main(rank: int, folder: Path) -> None:
    """Examine all nets on one rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for net in NORM.NETS:
        for drifting in ("", net.places[1]):
            scene = Replicated(net)
            scene.drifting = drifting
            found[f"{net.__name__} {drifting}"] = scene.of_rank(rank)
    Path(folder, f"rank{rank}.json").write_bytes(msgspec.json.encode(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
