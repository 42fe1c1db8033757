"""How accuracy falls with the batch size of BatchNorm's statistics, on the digits of scikit-learn.

A network of six convolutions is trained with batches of 64 and evaluated twice: with its running
statistics, and with the statistics of batches of 2 to 64 samples, as training with such batches would
see them. Beside the accuracy stands what normdoctor predicts of the last BatchNorm: how many independent
values a batch is worth, and how far its mean is off.

    pip install normdoctor[examples]
    python examples/small_batch.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import normdoctor

SIZES = (2, 4, 8, 16, 32, 64)


def block(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


class DigitNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            block(1, 16), block(16, 16), block(16, 32, 2), block(32, 32), block(32, 64, 2), block(64, 64)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


model = DigitNet()
inputs = torch.zeros(64, 1, 8, 8)


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images in [-1, 1] and labels: 1,300 to train on, 497 to test."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise SystemExit("this example needs the digits of scikit-learn: pip install scikit-learn") from error
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    labels, order = torch.tensor(found.target), torch.randperm(len(found.target))
    images, labels = images[order], labels[order]
    return images[:1300], labels[:1300], images[1300:], labels[1300:]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int = 6) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64)[:-1]:
            loss = F.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


@torch.no_grad()
def accuracy_in_batches(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, size: int, repeats: int = 8
) -> float:
    """With the statistics of random batches; the running ones are put back."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    right = count = 0
    for _ in range(repeats):
        whole = len(images) // size * size
        for rows in torch.randperm(len(images))[:whole].split(size):
            right += (model(images[rows]).argmax(1) == labels[rows]).sum().item()
            count += size
    model.load_state_dict(state)
    return right / count


def main() -> None:
    torch.manual_seed(0)
    images, labels, test_images, test_labels = digits()
    train(model, images, labels)
    batches = images.split(64)[:-1]
    report = normdoctor.check(model.train(), inputs, data=batches, select="ND701")
    last = report.batch_sizes()[-1]
    print(f"accuracy with running statistics: {accuracy(model, test_images, test_labels):.1%}")
    print(f"the last BatchNorm, {last['module']}: a sample is worth {last['per_sample']:.2f} values,")
    print(f"so batches of {last['passes']} pass\n")
    print("batch  n_eff  SE(mean)/sigma  SE(var)/var  accuracy")
    for size in SIZES:
        n_eff = last["per_sample"] * size
        found = accuracy_in_batches(model, test_images, test_labels, size)
        print(f"{size:5}  {n_eff:5.1f}  {n_eff**-0.5:14.2f}  {(2 / n_eff) ** 0.5:11.2f}  {found:8.1%}")
    print()
    print(report)


if __name__ == "__main__":
    main()
