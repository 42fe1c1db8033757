"""n_eff against brute force: what is predicted of batches is what resampled batches show."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import normdoctor

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(scope="module")
def net():
    import small_batch

    torch.manual_seed(0)
    model = small_batch.DigitNet()
    images, labels, *_ = small_batch.digits()
    small_batch.train(model, images, labels, epochs=2)
    return model, images


def measured(model, images, size, repeats=500):
    """The standard deviation of batch means over random batches, in standard deviations of the values.

    In eval mode: the layers in front of each norm are held fixed. Each image runs once; a batch's mean is
    that of its images' means.
    """
    taken = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, args, name=name: taken.__setitem__(name, args[0]))
    with torch.no_grad():
        model.eval()(images)
    found = {}
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(len(images), (repeats, size), generator=generator)
    for name, x in taken.items():
        means = x.double().mean((2, 3))[rows].mean(1)
        total = x.double().var((0, 2, 3))
        kept = total > 0
        found[name] = float((means.var(0)[kept] / total[kept]).sqrt().quantile(0.5))
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [2, 8, 32])
def test_predicted_error_of_the_mean_is_that_of_resampled_batches(net, size, training):
    model, images = net
    data = list(images.split(64))[:-1]
    report = normdoctor.check(model.train(training), data[0], data=data, select="ND701")
    wanted = measured(model, images, size)
    rows = {row["module"]: row for row in report.batch_sizes()}
    assert list(rows) == list(wanted) == [f"blocks.{place}.1" for place in range(6)]
    for name, row in rows.items():
        assert row["error_of_mean"][size] == pytest.approx(wanted[name], rel=0.15), name


def test_the_table_of_the_advisor(net):
    model, images = net
    report = normdoctor.check(model.train(), images[:8], data=list(images[:256].split(4)), select="ND701")
    text = str(report)
    assert "statistics by batch size:" in text
    assert "batches here: 4" in text
    assert "from: the smallest batch that passes" in text
    assert [row["passes"] for row in report.batch_sizes()] == sorted(
        row["passes"] for row in report.batch_sizes()
    )
    last = report.batch_sizes()[-1]
    assert last["n_eff"][256] == pytest.approx(256 * last["per_sample"])
    assert last["instead"].startswith("GroupNorm(")
    assert {finding.modules for finding in report.findings} >= {("blocks.5.1",)}
