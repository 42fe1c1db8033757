"""A test suite that checks models with normdoctor's fixture: `pytest examples/test_my_model.py`.

The models come from torchvision and transformers, with random weights: nothing is downloaded.
"""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

IMAGES = torch.rand(8, 3, 64, 64)
TOKENS = torch.randint(0, 100, (2, 16))
NAMES = ("BertConfig", "BertModel", "LlamaConfig", "LlamaForCausalLM")


@pytest.fixture
def vision():
    """Models of torchvision; skipped where it is not there, or not made for this torch."""
    return pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))


@pytest.fixture
def transformers():
    """Models of transformers, which imports torchvision where that is installed."""
    library = pytest.importorskip("transformers")
    try:  # the models are imported when they are asked for
        return {name: getattr(library, name) for name in NAMES}
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"transformers cannot be used here: {error}")


class Block(nn.Module):
    """A residual block as one writes it."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.norm(self.conv(x)))


def my_net(width=16, classes=10):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width),
        Block(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


# 1. The shortest one: no finding of level warning or above.
def test_my_net(normdoctor):
    normdoctor.assert_healthy(my_net(), inputs=IMAGES)


# 2. With the loss that trains it, rules about outputs and losses run too.
def test_with_its_loss(normdoctor):
    report = normdoctor.assert_healthy(my_net(), inputs=IMAGES, loss=nn.CrossEntropyLoss(), fail_on="info")
    assert report.findings == ()


# 3. With data, rules measure; a test may set limits of its own.
def test_on_data(normdoctor):
    batches = [torch.randn(32, 3, 64, 64) for _ in range(2)]
    normdoctor.assert_healthy(my_net(), data=batches, max_dead=0.5, min_batch=8)


# 4. While it trains.
def test_a_few_steps(normdoctor):
    net = my_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with normdoctor.watch(net, optimizer, every=1, on_finding="ignore") as watch:
        for _ in range(4):
            loss = nn.functional.cross_entropy(net(torch.randn(32, 3, 64, 64)), torch.randint(0, 10, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    normdoctor.assert_healthy(watch, fail_on="error")


# 5. A fault that is known, and stays for now.
def test_known_fault(normdoctor):
    net = my_net()
    net[1].momentum = 0.99  # of another framework, where it is the share that is kept
    normdoctor.check(net, inputs=IMAGES)
    normdoctor.expect("ND202", module="1")


# 6. and 7. Models of torchvision.
def test_resnet(normdoctor, vision):
    normdoctor.assert_healthy(vision.resnet18(num_classes=10), inputs=IMAGES)


def test_mobilenet(normdoctor, vision):
    normdoctor.assert_healthy(vision.mobilenet_v3_small(num_classes=10), inputs=IMAGES, select=["ND1", "ND2"])


# 8. and 9. Models of transformers, with what they are called with as a dict.
@pytest.mark.normdoctor(inputs={"input_ids": TOKENS})
class TestTransformers:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

    def test_bert(self, normdoctor, transformers):
        config = transformers["BertConfig"](vocab_size=100, **self.small)
        normdoctor.assert_healthy(transformers["BertModel"](config), fail_on="error")

    def test_llama(self, normdoctor, transformers):
        config = transformers["LlamaConfig"](vocab_size=100, **self.small)
        normdoctor.assert_healthy(transformers["LlamaForCausalLM"](config))


# 10. Where there is a GPU.
@pytest.mark.normdoctor_cuda
def test_on_the_gpu(normdoctor):
    normdoctor.assert_healthy(my_net().cuda(), inputs=IMAGES.cuda())
