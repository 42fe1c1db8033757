"""The examples of trainings run as they stand, and the how-to shows them as they stand."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "howto" / "training.md").read_text(encoding="utf-8")
NEEDS = {
    "train_plain.py": (),
    "train_lightning.py": ("lightning",),
    "train_transformers.py": ("transformers", "accelerate", "tensorboard"),
    "train_accelerate.py": ("accelerate",),
}


@pytest.mark.filterwarnings("ignore", "error::normdoctor.probing.live.NormDoctorWarning")
@pytest.mark.parametrize("name", NEEDS)
def test_it_runs_and_finds_nothing(name, capsys, tmp_path):
    for framework in NEEDS[name]:
        pytest.importorskip(framework)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"watched \d+ of \d+ steps", said)
    assert "rules, no findings" in said
    wrote = {one.name for one in tmp_path.iterdir()}
    assert wrote == {"train_plain.py": {"figures.jsonl"}, "train_lightning.py": {"logs"}}.get(name, wrote)


@pytest.mark.parametrize("name", NEEDS)
def test_the_page_shows_it(name):
    shown = re.search(rf"^```python {re.escape(name)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL).group(1)
    assert shown == (ROOT / "examples" / name).read_text(encoding="utf-8")
