"""The four seams on the LeNet example: measuring, converting, asserting, watching."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.layers import GroupNorm

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def lenet():
    return runpy.run_path(str(EXAMPLES / "lenet_bn.py"))["LeNet"]


@pytest.fixture
def dying(lenet):
    """LeNet with ReLUs, of which a bad step has killed 8 of the 16 channels of the second stage."""
    torch.manual_seed(0)
    model = lenet(activation=nn.ReLU)
    with torch.no_grad():
        model.features[5].weight[:8] = 0.01
        model.features[5].bias[:8] = -1.0
    return model


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(64, 1, 28, 28, generator=generator), torch.randint(10, (64,), generator=generator))
        for _ in range(8)
    ]


def test_measure(dying, batches):
    state, rng = copy.deepcopy(dying.state_dict()), torch.get_rng_state()
    report = normdoctor.check(dying, batches[0][0], data=batches, select="ND601")
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.modules) == ("ND601", "error", ("features.6",))
    assert finding.message.startswith(
        "8 of 16 units of `features.6` (50%) were never active in 51200 observations"
    )
    assert finding.evidence["rate_below"] == pytest.approx(3 / 51200)
    assert finding.location is not None
    assert all(torch.equal(value, state[key]) for key, value in dying.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in dying.modules())


def test_without_data_the_rule_says_that_it_did_not_run(dying, batches):
    report = normdoctor.check(dying, batches[0][0], select="ND601")
    assert [result.outcome for result in report.results] == ["skipped"]
    assert "data" in report.skipped[0].reason


def test_sigmoids_have_no_dead_units(lenet, batches):
    report = normdoctor.check(lenet(), batches[0][0], data=batches, select="ND601")
    assert [result.outcome for result in report.results] == ["passed"]


@pytest.mark.parametrize("name", ["lenet_bn.py", "lenet_sigmoid_bn.py"])
def test_convert(name):
    module = runpy.run_path(str(EXAMPLES / name))
    result = normdoctor.convert(module["model"], "batch->group", inputs=module["inputs"])
    if name == "lenet_sigmoid_bn.py":  # layers written by hand are no layers that could be replaced
        assert (result.verdict, result.replaced, result.differences["eval"].largest) == ("refused", (), 0.0)
        assert [left.path for left in result.refused] == [
            "features.1", "features.5", "classifier.2", "classifier.5",
        ]  # fmt: skip
        assert all("computes batch_norm by hand" in left.reason for left in result.refused)
        return
    assert [replaced.path for replaced in result.replaced] == [
        "features.1", "features.5", "classifier.2", "classifier.5",
    ]  # fmt: skip
    assert result.differences["eval"].relative > 0.01
    assert isinstance(result.model.features[1], GroupNorm)
    assert isinstance(module["model"].features[1], nn.BatchNorm2d)
    # The converted model is a model like any other: ND101 does not hold for it, and it trains.
    report = normdoctor.check(result.model, module["inputs"])
    assert report.ok
    assert "ND101" not in report.by_rule()
    result.model(module["inputs"]).sum().backward()
    assert all(parameter.grad is not None for parameter in result.model.parameters())


def test_assert_healthy(normdoctor, lenet, dying, batches):
    report = normdoctor.assert_healthy(lenet(activation=nn.ReLU), inputs=batches[0][0], data=batches)
    assert "ND601" not in report.by_rule()
    with pytest.raises(AssertionError, match=r"ND601.* 8 of 16 units of `features.6`"):
        normdoctor.assert_healthy(dying, inputs=batches[0][0], data=batches)


def test_watch(dying, batches):
    optimizer = torch.optim.SGD(dying.parameters(), lr=0.01)
    found = []
    with normdoctor.watch(dying, every=1, on_finding=found.append) as w:
        for images, labels in batches:
            loss = nn.functional.cross_entropy(dying(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w.step(loss)
    assert [(finding.code, finding.modules) for finding in found] == [("ND601", ("features.6",))]
    assert w.report().findings == tuple(found)
    notes = w.report().targets[0].notes  # a step is not observed while the one before is judged
    assert any(note.startswith("watched ") and note.endswith(" of 8 steps") for note in notes)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in dying.modules())
