"""Files of a user's project, for tests that run pytest on it in a process of its own: torch loads once."""

NETS = """
import torch
from torch import nn

example_inputs = torch.randn(2, 3, 8, 8)


def healthy():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)
    )


def sick():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, momentum=0.99),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 2),
    )


def dying():
    model = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))
    with torch.no_grad():
        model[0].bias[:6] = -1000.0
    return model


def small():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
"""

SUITE = """
import asyncio
import unittest

import pytest
import torch
from nets import dying, healthy, sick, small
from normdoctor.errors import UsageError

X = torch.randn(2, 3, 8, 8)
V = torch.randn(600, 8)
DATA = [(torch.randn(600, 8), torch.zeros(600)) for _ in range(2)]


def test_healthy(normdoctor):
    report = normdoctor.assert_healthy(healthy(), inputs=X)
    assert report.ok and report.coverage.startswith("1 norm layer")


def test_info_does_not_fail(normdoctor):
    report = normdoctor.assert_healthy(sick(), X, ignore="ND202")
    assert [f.code for f in report.findings] == ["ND101"]


@pytest.fixture(scope="class")
def report(normdoctor):
    return normdoctor.check(sick(), X)


@pytest.mark.normdoctor(fail_on="info", ignore=["ND101", "ND202"], inputs=lambda: X)
class TestMarked:
    def test_class_scoped_fixture(self, report):
        assert report.findings == () and report.ok

    def test_defaults_of_the_class(self, normdoctor):
        normdoctor.assert_healthy(sick())

    @pytest.mark.normdoctor(ignore="ND101")
    def test_closest_marker_wins(self, normdoctor):
        assert [f.code for f in normdoctor.check(sick(), X).findings] == ["ND202"]

    def test_argument_wins(self, normdoctor):
        assert len(normdoctor.check(sick(), X, select="ALL", ignore="ND3").findings) == 2


class OldStyle(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _doctor(self, normdoctor):
        self.doctor = normdoctor

    def test_old_style(self):
        self.doctor.assert_healthy(healthy(), inputs=X)
        with self.assertRaises(AssertionError):
            self.doctor.assert_healthy(sick(), inputs=X, select="ND202")


def test_async(normdoctor):
    async def checked():
        await asyncio.sleep(0)
        return normdoctor.assert_healthy(healthy(), inputs=X, select="ND2")

    assert asyncio.run(checked()).ok


def test_watch(normdoctor):
    model = dying()
    with normdoctor.watch(model, every=1, on_finding="ignore") as w:
        for x, _ in DATA:
            model(x)
            w.step()
    with pytest.raises(AssertionError, match="ND601"):
        normdoctor.assert_healthy(w)


def test_expected(normdoctor):
    normdoctor.check(sick(), inputs=X)
    (finding,) = normdoctor.expect("batchnorm-momentum", module="1")
    assert finding.location.file.endswith("nets.py")
    assert normdoctor.expect("ND202", model=sick(), inputs=X)


@pytest.mark.normdoctor_models("nets.py:healthy", "nets.py:sick")
def test_models(normdoctor, normdoctor_model):
    report = normdoctor.check(normdoctor_model, fail_on="never")
    assert report.targets[0].inputs[0].source == "declared" and report.results


@pytest.mark.normdoctor_cuda
def test_no_such_device():
    assert torch.cuda.is_available()


@pytest.mark.normdoctor(device="cuda:7")
def test_no_such_device_either():
    assert torch.cuda.device_count() > 7


def test_limits_are_kept(normdoctor):
    normdoctor.assert_healthy(small(), data=[V, V], max_dead=0.9, min_batch=64, ignore="ND4")


def test_sick(normdoctor):
    normdoctor.assert_healthy(sick(), inputs=X, fail_on="info")


def test_compared(normdoctor):
    assert normdoctor.check(sick(), inputs=X).findings == ()


def test_beside(normdoctor):
    assert normdoctor.check(sick(), inputs=X, select="ND101").ok is None


def test_not_expected(normdoctor):
    normdoctor.check(sick(), inputs=X)
    normdoctor.expect("ND101", module="stem.*")


def test_max_dead(normdoctor):
    normdoctor.assert_healthy(dying(), data=DATA, max_dead=0.5, fail_on="error", ignore="ND403")


def test_min_batch(normdoctor):
    normdoctor.assert_healthy(small(), data=[V, V], min_batch=4, select="ND2")


def test_min_batch_made_up(normdoctor):
    normdoctor.assert_healthy(small(), V, data="synthetic", min_batch=64, select="ND2")


def test_no_data(normdoctor):
    normdoctor.assert_healthy(small(), max_dead=0.1)


def test_not_examined(normdoctor):
    normdoctor.assert_healthy(healthy(), inputs=torch.randn(2, 5, 8, 8))


def test_misspelt(normdoctor):
    normdoctor.assert_healthy(healthy(), inputs=X, fail_on="warn")


def test_misspelt_option(normdoctor):
    normdoctor.check(healthy(), imputs=X)


def test_expect_takes_texts(normdoctor):
    for code, options in ((3, {}), (None, {}), ("ND101", {"module": []}), ("ND101", {"report": 3})):
        with pytest.raises(UsageError, match="expected a (text|report)"):
            normdoctor.expect(code, **options)
"""
#: What SUITE comes to.
OUTCOMES = {"passed": 14, "failed": 11, "skipped": 2}

#: Lines of the output of SUITE, in the order of its tests.
LINES = {
    "test_sick": [
        '>       normdoctor.assert_healthy(sick(), inputs=X, fail_on="info")',
        "E       normdoctor.report.NormDoctorFailure: 2 findings in `Sequential` (1 norm layer, * rules)",
        "E       nets.py:16:9: ND202 batchnorm-momentum: BatchNorm2d `1` has momentum=0.99*",
        "E         modules: 1",
        "E         confidence high, fix: Set momentum=0.01 (unsafe*",
        "E         normdoctor explain ND202",
        "E       nets.py:15:9: ND101 *the bias of `0`*",
        "E         confidence high, fix: Build the layer without a bias (safe)",
    ],
    "test_compared": ["E       assert 2 findings, expected none", "E         nets.py:16:9: ND202 *"],
    "test_beside": ["*- normdoctor -*", "nets.py:15:9: ND101 bias-before-norm*"],
    "test_not_expected": [
        "E *expected ND101 at a module like `stem.?`: there is no such finding*",
        "E *found else*",
    ],
    "test_max_dead": [
        "E *ND601 dead-units: 6 of 10 units of `1` (60%) were never active in 1200 observations*"
    ],
    "test_min_batch": [
        "E *nets.py:31:44: ND701*`1` normalizes by batches of 4*",
        "E         help: Use nn.LayerNorm(16)*",
    ],
    "test_min_batch_made_up": ["E *min_batch could not be judged*(call model.train()*"],
    "test_no_data": [
        "E *UsageError: max_dead= is judged on data, and there is none",
        "E *Pass data= as well*",
    ],
    "test_not_examined": ["E *`Sequential` could not be examined whole*", "E *RuntimeError*"],
    "test_misspelt": ["E *fail_on is one of *got 'warn'", "E *Did you mean `warning`?"],
    "test_misspelt_option": ["E *unknown argument `imputs`", "E *Did you mean `inputs`*"],
}
