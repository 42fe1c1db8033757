"""What is answered to a misspelt conversion."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.normwords import near_norms

KNOWN = ["batch->group", "batch->layer", "layer->rms", "sync->batch", "batch->instance"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("bn->gn", "batch->group"),
        ("BatchNorm2d -> GroupNorm", "batch->group"),
        ("batch2group", "batch->group"),
        ("syncbn->bn", "sync->batch"),
        ("LayerNorm to RMSNorm", "layer->rms"),
        ("batch->in", "batch->instance"),
    ],
)
def test_abbreviations(text, meant):
    assert near_norms(text, KNOWN) == f"Did you mean `{meant}`?"


def test_nothing_near():
    assert near_norms("quux", KNOWN) is None
    assert near_norms("batch->grup", KNOWN).startswith("Did you mean `batch->group`")


@pytest.mark.parametrize("word", ["grup", "gn", "GroupNorm"])
def test_the_option_says_so_too(word):
    done = CliRunner().invoke(main, ["convert", "net.py", "--to", word])
    assert done.exit_code == 2
    assert "'rms'. Did you mean `group`?" in done.stderr
