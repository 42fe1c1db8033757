"""What other converters lose (rows of `benchmarks/converters.py`): ours keep it, or say why not."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "converters.py"
SPEC = importlib.util.spec_from_file_location("converters_benchmark", FILE)
BENCH = importlib.util.module_from_spec(SPEC)


@pytest.fixture(scope="module", autouse=True)
def bench():
    import sys

    sys.modules["converters_benchmark"] = BENCH
    SPEC.loader.exec_module(BENCH)
    yield BENCH
    del sys.modules["converters_benchmark"]


NAMES = [
    line.split('"')[1]
    for line in FILE.read_text(encoding="utf-8").splitlines()
    if line.startswith("    Row(")
]

#: Rows that ours refuse, in the conversions that they refuse them in, with words of the reason.
REFUSED = {
    ("track_running_stats=False", "batch->frozen"): "no running statistics",
    **{("lazy BatchNorm", spec): "lazy modules" for spec in ("batch->group", "batch->sync", "batch->frozen")},
    **{
        ("F.batch_norm in a forward", spec): "its forward calls batch_norm (benchmarks/converters.py:"
        for spec in ("batch->group", "batch->sync", "batch->frozen")
    },
    ("fold: conv of two norms", "batch->none"): "`conv` is called elsewhere too",
    ("fold: Linear of 3 dimensions", "batch->none"): "not the output channels of the layer in front",
    ("fold: hook on the convolution", "batch->none"): "forward hooks of `0` see its output",
    ("fold: weight_norm", "batch->none"): "the weight of `0` is computed",
}
#: What torch 2.13's converters do with the same models.
TORCH = {
    "hooks": "the hook ran 0 times",
    "Python attributes": "attribute lost",
    "subclass with an activation": "activation lost",
    "one norm under two names": "two layers",
    "lazy BatchNorm": "0 channels",
    "F.batch_norm in a forward": "not seen",
    "fold: transposed": "left as it was",
    "fold: conv of two norms": "outputs off by",
    "fold: Linear of 3 dimensions": "outputs off by",
    "fold: affine=False": "raises TypeError",
    "fold: hook on the convolution": "the hook sees other values",
}


def row(name):
    return next(one for one in BENCH.ROWS if one.name == name)


def test_all_rows_are_here(bench):
    assert [one.name for one in bench.ROWS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_ours(name, bench):
    one = row(name)
    for spec in ("batch->none",) if one.fold else bench.OURS:
        found, reason = bench.cell(one, bench.ours(spec))
        expected = REFUSED.get((name, spec))
        assert found == ("kept" if expected is None else "refused"), (spec, reason)
        assert (expected or "") in reason


@pytest.mark.skipif(torch.__version__ < "2.13", reason="what other versions of torch lose is not known")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_torch(name, bench):
    one = row(name)
    found, _ = bench.cell(one, bench.torch_own()[one.fold])
    assert found.startswith(TORCH.get(name, "kept"))


def test_calls_on_weights_are_no_norms_of_activations(bench):
    """Weight standardization by F.batch_norm, in the same forward, is not listed."""
    import normdoctor

    result = normdoctor.convert(bench.Functional(), "batch->group", inputs=bench.X)
    assert len(result.refused) == 1
