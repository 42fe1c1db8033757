"""BatchNorm of a trained network replaced by GroupNorm, without and with fine-tuning.

A small residual network is trained on the digits of scikit-learn. Its BatchNorms become GroupNorms in three
ways: with scale and shift copied, as most converters do it; with the running statistics folded into the
convolutions in front, as `normdoctor.convert` does it; and that with 40 steps of fine-tuning. The accuracy
of each is printed, for one group and more.

    pip install normdoctor[examples]
    python examples/bn_to_gn.py --seeds 3
"""

import argparse
import copy
import statistics

import torch
import torch.nn.functional as F
from torch import nn

import normdoctor


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.skip = nn.Identity()
        if stride != 1 or inner != outer:
            self.skip = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.skip(x))


class DigitNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(
            Block(16, 16, 1), Block(16, 16, 1),
            Block(16, 32, 2), Block(32, 32, 1),
            Block(32, 64, 2), Block(64, 64, 1),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


model = DigitNet()
inputs = torch.zeros(8, 1, 12, 12)


def digits(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images in [-1, 1] and labels: 1,300 to train on, 497 to test."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise SystemExit("this example needs the digits of scikit-learn: pip install scikit-learn") from error
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    images = F.interpolate(images, size=(12, 12), mode="bilinear")
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(seed))
    images, labels = images[order], torch.tensor(found.target)[order]
    return images[:1300], labels[:1300], images[1300:], labels[1300:]


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int, rate: float, decay: float
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item() * 100


def copied(model: nn.Module, groups: int) -> nn.Module:
    """GroupNorms with the scale and shift of the BatchNorms, and nothing else."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                new = nn.GroupNorm(groups, child.num_features, child.eps)
                new.load_state_dict({"weight": child.weight, "bias": child.bias})
                setattr(module, name, new)
    return model


def run(seed: int, steps: int, groups: list[int]) -> dict[str, float]:
    torch.manual_seed(seed)
    train_x, train_y, test_x, test_y = digits(seed)
    net = DigitNet()
    train(net, train_x, train_y, steps, 0.1, 5e-4)
    found = {"BatchNorm": accuracy(net, test_x, test_y)}
    for count in groups:
        found[f"copied, G={count}"] = accuracy(copied(net, count), test_x, test_y)
    for count in groups:
        options = {"num_groups": count, "inputs": test_x[:64]}
        result = normdoctor.convert(net, "batch->group", data=[train_x[:256]], **options)
        found[f"convert with data, G={count}"] = accuracy(result.model, test_x, test_y)
        result = normdoctor.convert(net, "batch->group", **options)
        found[f"convert, G={count}"] = accuracy(result.model, test_x, test_y)
        train(result.model, train_x, train_y, 40, 0.005, 0.0)
        found[f"convert and 40 steps, G={count}"] = accuracy(result.model, test_x, test_y)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    runs = [run(seed, options.steps, options.groups) for seed in range(options.seeds)]
    print(f"{'accuracy in %':32}{'mean':>7}{'lowest':>8}{'highest':>8}")
    for name in runs[0]:
        values = [found[name] for found in runs]
        print(f"{name:32}{statistics.mean(values):7.1f}{min(values):8.1f}{max(values):8.1f}")


if __name__ == "__main__":
    main()
