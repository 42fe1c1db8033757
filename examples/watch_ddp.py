"""Watching a training on several processes: each rank observes its share, the report is about all of it.

Start it with

    torchrun --nproc-per-node 2 examples/watch_ddp.py

On GPUs the BatchNorms become SyncBatchNorms, so that statistics are those of the whole batch. On CPUs every
rank normalizes with its own share, and rank 0 hands its running statistics to the others before each step.
"""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def block(inner: int, outer: int) -> nn.Sequential:
    conv = nn.Conv2d(inner, outer, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.ReLU())


class Net(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16), block(16, 32), block(32, 64))
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        return self.head(self.body(x).mean(dim=(2, 3)))


model = Net()
inputs = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def main() -> None:
    import normdoctor

    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    torch.manual_seed(0)
    net: nn.Module = Net().to(device)
    if cuda:
        torch.cuda.set_device(device)
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    ddp = DistributedDataParallel(net)
    images = TensorDataset(torch.randn(512, 3, 32, 32), torch.randint(10, (512,)))
    loader = DataLoader(images, batch_size=32, sampler=DistributedSampler(images), drop_last=True)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05, momentum=0.9)
    with normdoctor.watch(ddp, optimizer, every=2, on_finding="ignore") as w:
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(ddp(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
            w.step(loss)
    report = w.report(all_ranks=True)  # every rank takes part, and gets the same
    if dist.get_rank() == 0:
        print(report)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
