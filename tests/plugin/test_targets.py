"""`--normdoctor`: the targets of the configuration as items of pytest."""

import json
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from .suites import NETS

pytest_plugins = ["pytester"]

TWO = """
from torch import nn


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x))


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8, eps=8)

    def forward(self, x):
        return self.norm(self.fc(x))
"""
BROKEN = "import torch\nimport no_such_library_at_all\nmodel = no_such_library_at_all.Net()\n"
STUBBORN = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8, momentum=0.99)

    def forward(self, x):
        raise RuntimeError("not today \\x1b[31m")
"""
CONFIG = """
[tool.pytest.ini_options]
addopts = "--strict-markers --strict-config -p no:randomly"

[tool.normdoctor]
targets = [{targets}]
select = ["ND101", "ND201", "ND202", "ND601"]
inputs = {{ "nets.py:sick" = "2,3,8,8" }}
"""
SICK, BOTH, BAD = '"nets.py:sick"', '"two.py"', '"broken.py:model", "models/stub\\u001bborn.py:Net"'
CONFTEST = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid == "two.py::Other::ND201":
            item.add_marker(pytest.mark.xfail(reason="wanted", strict=True))
"""
# ND101 is below fail-on, and ND601 wants data; of `broken` nothing is known, of `stub` what needs no forward.
COUNTS = {"passed": 12, "failed": 2, "skipped": 9, "errors": 2, "xfailed": 1}
OUTCOMES = """
nets.py::sick::ND101 PASSED
nets.py::sick::ND202 FAILED
two.py::One::ND101 PASSED
two.py::Other::ND201 XFAIL
broken.py::model::examination ERROR
broken.py::model::ND101 SKIPPED
models/stub\\x1bborn.py::Net::examination ERROR
models/stub\\x1bborn.py::Net::ND101 SKIPPED
models/stub\\x1bborn.py::Net::ND202 FAILED
"""
BLOCKS = (
    ["*_ sick::ND202 _*", "nets.py:16:9: ND202 *", "  modules: 1", "  * fix: Set momentum=0.01 *", "*ND202"],
    ["*ERROR at setup of model::examination*", "error: *no_such_library*"],
    ["*ERROR at setup of Net::examination*", "error: *not today \\x1b*"],
    ["SKIPPED*not examined, see broken.py::model::examination"],
    ["SKIPPED*it needs measurements on data: units"],
    ["normdoctor: 3 errors, 3 info in 4 models (*fixable), 2 not examined", "*written to out/report.json"],
)  # fmt: skip


@pytest.fixture
def project(pytester):
    """A folder with a good test and models; `configure` says which of them are targets."""
    pytester.makepyfile(nets=NETS, two=TWO, broken=BROKEN, test_it="def test_it(): pass")
    pytester.mkdir("models").joinpath("stub\x1bborn.py").write_text(STUBBORN)

    def configure(*targets):
        pytester.makepyprojecttoml(CONFIG.format(targets=", ".join(targets)))
        return pytester

    return configure


def with_baseline(project):
    file = project.path / "pyproject.toml"
    file.write_text(file.read_text().replace("select =", 'baseline = "known.json"\nselect ='))
    return project


def test_items_of_targets_and_one_report_of_all_workers(project):
    pytest.importorskip("xdist")
    project = project(SICK, BOTH, BAD)
    project.makeconftest(CONFTEST)
    reports = []
    for way in ((), ("-n", "2")):
        files = ("--normdoctor-report=out/report.json", "--junit-xml=junit.xml")
        result = project.runpytest_subprocess("--normdoctor", *way, *files, "-rsxE", "-v")
        assert result.parseoutcomes() == COUNTS
        assert "\x1b" not in result.stdout.str()
        lines = [" ".join(line.split()) for line in result.outlines]
        for node, outcome in (line.split() for line in OUTCOMES.splitlines() if line):
            words = (f"*{node} {outcome}*", f"*{outcome} {node}*")
            assert any(fnmatchcase(line, word) for line in lines for word in words), node
        for block in BLOCKS:
            result.stdout.fnmatch_lines(block)
        reports.append((project.path / "out" / "report.json").read_bytes())
        junit = (project.path / "junit.xml").read_text()
        assert 'classname="nets.sick" name="ND202"' in junit
        assert '<property name="normdoctor.errors" value="1"' in junit
    assert reports[0] == reports[1]
    names = ["models/stub\x1bborn.py:Net", "nets.py:sick", "two.py:One", "two.py:Other"]
    assert [target["name"] for target in json.loads(reports[0])["targets"]] == names


def test_what_pytest_selects(project):
    project = project(SICK)

    def listed(*arguments):
        result = project.runpytest_inprocess("--normdoctor", "--collect-only", "-q", *arguments)
        return {line for line in result.outlines if "::" in line}

    every = {f"nets.py::sick::{code}" for code in ("examination", "ND101", "ND201", "ND202", "ND601")}
    assert listed("nets.py") == every
    assert listed("nets.py::sick::ND101", "test_it.py") == {"nets.py::sick::ND101", "test_it.py::test_it"}
    assert listed("-k", "batchnorm-momentum and sick") == {"nets.py::sick::ND202"}
    assert listed("-k", "sick", "--deselect=nets.py::sick::ND101") == every - {"nets.py::sick::ND101"}
    result = project.runpytest_subprocess("--normdoctor", "nets.py::sick", "-q")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    assert listed("--lf") == {"nets.py::sick::ND202"}
    result = project.runpytest_inprocess("--normdoctor", "nets.py::sick::ND20")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = ["ERROR: no item of normdoctor is called nets.py::sick::ND20", "*`nets.py*ND202`*"]
    result.stderr.fnmatch_lines(lines)


def test_names_are_known_without_torch(project):
    project = project(SICK)
    project.makeconftest(
        "import sys\n\ndef pytest_unconfigure(config):\n    print('torch', 'torch' in sys.modules)\n"
    )
    result = project.runpytest_subprocess("--normdoctor", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["nets.py::sick::ND101", "*torch False"])


def test_a_model_that_is_not_examined_never_passes_in_silence(project):
    result = project(BAD).runpytest_subprocess("--normdoctor", "-k", "ND101 or ND202", "-x", "--maxfail=9")
    assert result.parseoutcomes() == {"errors": 3, "failed": 1, "deselected": 7}
    result.stdout.fnmatch_lines(["error: *no_such_library*", "error: *not today*"])


def test_the_baseline_of_two_workers_is_that_of_the_command_line(project):
    pytest.importorskip("xdist")
    project = with_baseline(project(SICK, BOTH))
    command = [sys.executable, "-c", "from normdoctor.cli import main; main()", "check", "--write-baseline"]
    done = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known = project.path / "known.json"
    expected = known.read_bytes()
    known.unlink()
    result = project.runpytest_subprocess("--normdoctor", "--normdoctor-update-baseline", "-n", "2")
    assert result.ret == 0
    line = "normdoctor: no findings in 3 models (*), 5 known"
    result.stdout.fnmatch_lines([line, "normdoctor: 5 known findings written to known.json."])
    assert known.read_bytes() == expected
    # With fewer rules, what is known of the others stays.
    update = ("--normdoctor", "--normdoctor-update-baseline", "-k", "ND202")
    project.runpytest_subprocess(*update).assert_outcomes(passed=3, deselected=13)
    assert known.read_bytes() == expected
    project.runpytest_subprocess("--normdoctor").assert_outcomes(passed=13, skipped=3)


def test_ctrl_c_in_an_examination(project):
    project = with_baseline(project('"stop.py:model"'))
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # jobs of a shell ignore it
    kill = "os.kill(os.getpid(), signal.SIGINT)"
    stop = f"import os, signal, torch\n{heed}\n{kill}\nmodel = torch.nn.LayerNorm(8)\n"
    project.makepyfile(stop=stop)
    result = project.runpytest_subprocess("--normdoctor", "--normdoctor-update-baseline")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["normdoctor: the run was interrupted: the baseline stays as it was"])
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert not (project.path / "known.json").exists()


MISTAKES = (
    (("--normdoctor",), "", "*there is nothing to check: expected `targets`*"),
    (("--normdoctor-select=ND1001",), "", "*unknown rule `ND1001`*"),
    (("--normdoctor-report=test_it.py/report.json",), "", "*cannot write the report to *"),
    (("--normdoctor-report=report.jsn",), "", "*expected a name that ends in .json*"),
    (("--normdoctor", "--normdoctor-update-baseline"), 'targets = ["a.py"]', "*needs to know the file*"),
    (("--normdoctor-update-baseline",), "", "*needs --normdoctor*"),
    (("--normdoctor",), 'target = ["a.py"]', "*did you mean `targets`*"),
    (("--normdoctor-report=known.json",), 'baseline = "known.json"', "*the baseline would be one file*"),
    (("--normdoctor-report=link.json",), "", "*test_it.py: expected a name that ends in*"),
    (("--normdoctor-report=round.json",), "", "*cannot write the report to *"),
    (("--normdoctor",), 'targets = ["a.py"]\nbaseline = "none.json"', "no such baseline: none.json"),
    (("--normdoctor",), 'targets = ["a.py"]\nbaseline = "known.json"', "known.json is not a baseline*"),
)


def test_mistakes_end_before_the_first_test(pytester):
    pytester.makepyfile(test_it="def test_it(): pass")
    pytester.path.joinpath("known.json").write_text("kept")
    pytester.path.joinpath("link.json").symlink_to("test_it.py")
    pytester.path.joinpath("round.json").symlink_to("round.json")
    for arguments, config, message in MISTAKES:
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n\n[tool.normdoctor]\n{config}\n")
        result = pytester.runpytest_inprocess(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {message}"])
        result.stdout.no_fnmatch_line("*1 passed*")
    assert pytester.path.joinpath("known.json").read_text() == "kept"


def test_a_folder_as_target_and_as_argument_of_pytest(pytester):
    loud = "from torch import nn\nprint('LOUD')\nnet = nn.Sequential(nn.Linear(2, 2))\n"
    pytester.makepyfile(**{"nets": loud, "models/nets": loud, "models/test_it": "def test_it(): pass"})
    for targets, arguments in (('"."', ()), ('"models"', ("models",))):
        pytester.makepyprojecttoml(
            f'[tool.pytest.ini_options]\n\n[tool.normdoctor]\ntargets = [{targets}]\nselect = ["ND101"]\n'
        )
        result = pytester.runpytest_subprocess("--normdoctor", "-v", *arguments)
        result.stdout.fnmatch_lines(["models/test_it.py*", "*nets.py*", "*3 passed*"])
        result.stdout.no_fnmatch_line("*LOUD*")


def test_targets_of_the_ini_file(pytester):
    test = "def test_all(normdoctor, normdoctor_model): pass"
    pytester.makepyfile(**{"lib/nets": NETS, "tests/test_all": test})
    targets = "normdoctor_targets =\n    lib/nets.py:sick\n    lib/nets.py:healthy\n"
    pytester.makeini(f"[pytest]\naddopts = -p no:randomly\nnormdoctor_fail_on = info\n{targets}")
    result = pytester.runpytest_subprocess("--normdoctor", "--normdoctor-select=ND101", "-v")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(
        [
            "normdoctor: 2 targets, findings fail from info on",
            "tests/test_all.py::test_all?lib/nets.py:sick? PASSED*",
            "lib/nets.py::sick::ND101 FAILED*",
        ]
    )
