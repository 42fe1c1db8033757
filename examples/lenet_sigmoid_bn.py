"""LeNet with sigmoids and a BatchNorm written by hand, as textbooks introduce it.

The hand-written layer computes the right formula, and carries two faults that textbooks teach along with
it:

- The running statistics are plain tensors, not buffers. `state_dict()` does not save them and
  `model.to("cuda")` leaves them behind, so `forward` has to move them.
- Training and evaluation are told apart by `torch.is_grad_enabled()`. `model.eval()` has no effect on the
  layer: evaluating without `torch.no_grad()` moves the statistics, and a validation loss under `no_grad` in
  train mode uses the running ones.

`lenet_bn.py` is the same network with `nn.BatchNorm2d`, which has neither. One command rewrites this file
to the layers of normdoctor (`--to torch`: of torch), and shows the change (`--write` keeps it):

    normdoctor convert examples/lenet_sigmoid_bn.py --to ours
"""

import torch
from torch import nn


class BatchNorm(nn.Module):
    """Batch normalization of a `(batch, features)` or a `(batch, channels, height, width)` tensor."""

    def __init__(self, features: int, dims: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        shape = (1, features) if dims == 2 else (1, features, 1, 1)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.moving_mean = torch.zeros(shape)
        self.moving_var = torch.ones(shape)
        self.eps = eps
        self.momentum = momentum

    def forward(self, x):
        if self.moving_mean.device != x.device:
            self.moving_mean = self.moving_mean.to(x.device)
            self.moving_var = self.moving_var.to(x.device)
        if torch.is_grad_enabled():
            axes = (0,) if x.dim() == 2 else (0, 2, 3)
            mean = x.mean(axes, keepdim=True)
            var = ((x - mean) ** 2).mean(axes, keepdim=True)
            self.moving_mean = (1 - self.momentum) * self.moving_mean + self.momentum * mean.detach()
            self.moving_var = (1 - self.momentum) * self.moving_var + self.momentum * var.detach()
        else:
            mean, var = self.moving_mean, self.moving_var
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


class LeNet(nn.Module):
    """LeCun et al. (1998), with batch normalization after each layer but the last."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            BatchNorm(6, dims=4),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            BatchNorm(16, dims=4),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            BatchNorm(120, dims=2),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            BatchNorm(84, dims=2),
            nn.Sigmoid(),
            nn.Linear(84, classes),
        )

    def forward(self, images):
        return self.classifier(self.features(images))


model = LeNet()
inputs = torch.randn(8, 1, 28, 28)
