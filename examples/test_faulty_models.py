"""The same as test_my_model.py with a fault in each model: every test fails, and says where and what to do.

To see it: `pytest examples/test_faulty_models.py`. It is no part of normdoctor's own test suite.
"""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

IMAGES = torch.rand(8, 3, 64, 64)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm(self.conv(self.relu(x)))


def test_inplace_relu_before_a_skip(normdoctor):
    net = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), Block(16), Block(16))
    normdoctor.assert_healthy(net, inputs=IMAGES)


def test_momentum_of_another_framework(normdoctor):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4, bias=False),
        nn.BatchNorm2d(16, momentum=0.99),
        nn.ReLU(),
    )
    normdoctor.assert_healthy(net, inputs=IMAGES)


def test_softmax_before_cross_entropy(normdoctor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10), nn.Softmax(dim=1))
    normdoctor.assert_healthy(net, inputs=IMAGES, loss=nn.CrossEntropyLoss())


def test_dead_units(normdoctor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.constant_(net[1].bias[:8], -100.0)
    normdoctor.assert_healthy(net, data=[IMAGES] * 4, max_dead=0.1)


def test_too_small_a_batch(normdoctor):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU())
    normdoctor.assert_healthy(net, data=[torch.randn(32, 3, 64, 64)] * 2, min_batch=4, select="ND7")


def test_momentum_in_torchvision(normdoctor):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    net = models.resnet18(num_classes=10, norm_layer=lambda width: nn.BatchNorm2d(width, momentum=0.99))
    normdoctor.assert_healthy(net, inputs=IMAGES)
