"""A loop with accelerate under `normdoctor.watch`, with accumulated gradients.

    pip install accelerate
    python examples/train_accelerate.py

`step` is called once for each step of the optimizer. With a tracker (`Accelerator(log_with=...)`) the
accelerator itself is a sink: `normdoctor.watch(..., sink=accelerator)`.
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import normdoctor


def data(count: int) -> DataLoader:
    x = torch.randn(count, 8)
    return DataLoader(TensorDataset(x, (x.sum(dim=1) > 0).long()), batch_size=32, shuffle=True)


def main() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0)
    net, optimizer, train = accelerator.prepare(net, optimizer, data(1024))
    main_process = accelerator.is_main_process
    with normdoctor.watch(net, optimizer, every=4, on_finding="warn" if main_process else "ignore") as watch:
        for _ in range(2):
            for x, y in train:
                with accelerator.accumulate(net):
                    loss = F.cross_entropy(net(x), y)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                if accelerator.sync_gradients:
                    watch.step(loss)
    report = watch.report(all_ranks=accelerator.num_processes > 1)  # then every process takes part
    accelerator.print(report)


if __name__ == "__main__":
    main()
