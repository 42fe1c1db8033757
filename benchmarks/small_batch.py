"""n_eff against brute force: the predicted error of batch means beside that of 500 resampled batches.

    python benchmarks/small_batch.py > benchmarks/results/small_batch.md

The network and the data are those of `examples/small_batch.py`; what is printed holds for the whole training
set, with the layers in front of each norm held fixed (eval mode).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import normdoctor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import small_batch

REPEATS = 500


@torch.no_grad()
def inputs_of_norms(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each BatchNorm takes, over all images."""
    taken: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: taken.__setitem__(name, args[0].double()))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    model.eval()(images)
    for handle in handles:
        handle.remove()
    return taken


def resampled(x: Tensor, size: int) -> float:
    """Standard deviation of the means of random batches, in standard deviations: median over channels."""
    rows = torch.randint(len(x), (REPEATS, size), generator=torch.Generator().manual_seed(size))
    means = x.mean((2, 3))[rows].mean(1)
    total = x.var((0, 2, 3))
    return float((means.var(0) / total)[total > 0].sqrt().quantile(0.5))


def main() -> None:
    """Print the table, and the largest deviation."""
    torch.manual_seed(0)
    images, labels, test_images, test_labels = small_batch.digits()
    model = small_batch.DigitNet()
    small_batch.train(model, images, labels)
    report = normdoctor.check(
        model.train(), images[:8], data=list(images.split(64))[:-1], batches=64, select="ND701"
    )
    taken = inputs_of_norms(model, images)
    print("| norm | batch | n_eff | predicted SE/sigma | resampled | deviation |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for row in report.batch_sizes():
        for size in (2, 8, 32):
            predicted, found = row["error_of_mean"][size], resampled(taken[row["module"]], size)
            worst = max(worst, abs(predicted / found - 1))
            n_eff = row["n_eff"][size]
            print(
                f"| {row['module']} | {size} | {n_eff:.1f} | {predicted:.4f} | {found:.4f} "
                f"| {predicted / found - 1:+.1%} |"
            )
    print(f"\nlargest deviation: {worst:.1%}\n")
    print("| batch | n_eff of the last norm | SE(mean)/sigma | accuracy with batch statistics |")
    print("|---|---|---|---|")
    last = report.batch_sizes()[-1]
    for size in small_batch.SIZES:
        found = small_batch.accuracy_in_batches(model, test_images, test_labels, size)
        print(f"| {size} | {last['n_eff'][size]:.1f} | {last['error_of_mean'][size]:.2f} | {found:.1%} |")
    print(f"\nwith running statistics: {small_batch.accuracy(model, test_images, test_labels):.1%}")


if __name__ == "__main__":
    main()
