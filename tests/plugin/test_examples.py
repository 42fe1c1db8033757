"""The suites of examples/: the healthy one passes, and the faulty one says where and what to do."""

import importlib.util
from pathlib import Path

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent.parent
CONFTEST = """
import importlib.util
import torch

# torchvision, whose compiled operators do not load beside a CPU build of torch
if importlib.util.find_spec("torchvision") and torch.version.cuda is None:
    spec = importlib.util.spec_from_file_location("house", {file!r})
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    library = torch.library.Library("torchvision", "DEF")
    for schema in house.SCHEMAS:
        library.define(schema)
"""
#: What each failure of the faulty suite says: the source it points at, the layer, the rule and the cure.
FAULTS = {
    "test_inplace_relu_before_a_skip": (
        "self.relu = nn.ReLU(inplace=True)", "1.relu, 2.relu", "ND315", "fix: Set inplace=False (safe)",
    ),
    "test_momentum_of_another_framework": ("nn.BatchNorm2d(16, mom", "1", "ND202", "fix: Set momentum=0.01 "),
    "test_softmax_before_cross_entropy": ("nn.Softmax(dim=1)", "2", "ND310", "fix: Drop it and let "),
    "test_dead_units": ("nn.ReLU(), nn.Linear(32, 10)", "2", "ND601", "help: Lower the learning rate"),
    "test_too_small_a_batch": ("nn.BatchNorm1d(32), nn.ReLU", "2", "ND701", "help: Use nn.LayerNorm(32)"),
    "test_momentum_in_torchvision": ("nn.BatchNorm2d(width, mom", "layer1.0.bn1", "ND202", "fix: Set mom"),
}  # fmt: skip


def test_the_suites_of_the_examples(pytester):
    lines = (ROOT / "examples" / "test_faulty_models.py").read_text(encoding="utf-8").splitlines()
    for name in ("test_my_model.py", "test_faulty_models.py"):
        pytester.path.joinpath(name).write_bytes((ROOT / "examples" / name).read_bytes())
    pytester.makeconftest(CONFTEST.format(file=str(ROOT / "tests" / "conftest.py")))
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers", "-rsf")
    there = {name: importlib.util.find_spec(name) is not None for name in ("torchvision", "transformers")}
    import torch

    missing = 2 * (not all(there.values())) + 2 * (not there["torchvision"]) + (not torch.cuda.is_available())
    counts = result.parseoutcomes()
    assert counts["passed"] == 10 - missing, counts
    assert counts["failed"] == len(FAULTS) - (not there["torchvision"])
    for name, (source, layer, code, cure) in FAULTS.items():
        if name.endswith("torchvision") and not there["torchvision"]:
            continue
        number = next(number for number, text in enumerate(lines, start=1) if source in text)
        said = [f"*_ {name} _*", f"E *test_faulty_models.py:{number}:*: {code} *", f"E *modules: *{layer}*"]
        result.stdout.fnmatch_lines([*said, f"E *{cure.replace('(', '?')}*", f"E *normdoctor explain {code}"])


def test_every_fault_has_a_test():
    text = (ROOT / "examples" / "test_faulty_models.py").read_text(encoding="utf-8")
    assert {line[4:].partition("(")[0] for line in text.splitlines() if line.startswith("def test_")} == set(
        FAULTS
    )
