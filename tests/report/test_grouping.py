"""Grouping: one finding a rule and place, naming all modules and hiding no figure."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from normdoctor.facts import Location
from normdoctor.findings import Confidence, Finding, Fix, Severity, Site
from normdoctor.grouping import group, natural


def finding(module, line=1, **fields):
    known = {
        "code": "ND101",
        "name": "bias-before-norm",
        "severity": Severity.WARNING,
        "confidence": Confidence.HIGH,
        "message": "{modules} is odd",
        "modules": (module,),
        "sites": (Site(module=module),),
        "location": Location("m.py", line) if line else None,
    }
    return Finding(**(known | fields))


def test_modules_are_in_natural_order():
    (merged,) = group([finding(f"layer.{i}") for i in (10, 9, 1)])
    assert merged.modules == ("layer.1", "layer.9", "layer.10")
    assert merged.message == "`layer.*` is odd"
    assert [site.module for site in merged.sites] == ["layer.1", "layer.9", "layer.10"]


def test_a_lone_module_is_named_in_full():
    (merged,) = group([finding("layer.1.conv")])
    assert merged.message == "`layer.1.conv` is odd"


def test_what_is_kept_apart():
    base = finding("a")
    others = [
        finding("a", line=2),
        finding("a", code="ND102"),
        finding("a", severity=Severity.ERROR),
        finding("a", target="other.py:Net"),
    ]
    assert len(group([base, *others])) == 5


def test_without_a_place_masked_paths_decide():
    found = group([finding("a.0", line=0), finding("a.1", line=0), finding("b.0", line=0)])
    assert [one.modules for one in found] == [("a.0", "a.1"), ("b.0",)]


def test_only_common_evidence_is_said_of_all():
    (merged,) = group(
        [finding("a.0", evidence={"eps": 1.0, "n": 1}), finding("a.1", evidence={"eps": 1.0, "n": 2})]
    )
    assert merged.evidence == {"eps": 1.0}


def test_different_messages_are_not_spread_over_all():
    (merged,) = group(
        [
            finding("a.1", message="{modules} has 64 channels"),
            finding("a.0", message="{modules} has 32 channels"),
            finding("a.2", message="{modules} has 64 channels"),
        ]
    )
    assert merged.message == "`a.0` has 32 channels (likewise 2 more, with other figures)"


def test_the_least_confidence_holds():
    (merged,) = group([finding("a.0"), finding("a.1", confidence=Confidence.LOW)])
    assert merged.confidence == Confidence.LOW


def test_a_fix_is_kept_only_where_all_agree():
    one, two = Fix(title="drop it", edits={"bias": "False"}), Fix(title="drop it", edits={"bias": "None"})
    assert group([finding("a.0", fix=one), finding("a.1", fix=one)])[0].fix == one
    assert group([finding("a.0", fix=one), finding("a.1", fix=two)])[0].fix is None
    assert group([finding("a.0", fix=one), finding("a.1")])[0].fix is None


def test_order():
    found = [
        finding("a", line=0),
        finding("b", line=3),
        finding("a", line=3, code="ND300"),
        finding("a", line=20),
        finding("a", location=Location("a.py", 99)),
        finding("a", location=Location("m.py", 3, 9)),
    ]
    ordered = group(found)
    assert [
        (f.location.file, f.location.line, f.location.column, f.code) for f in ordered[:-1] if f.location
    ] == [
        ("a.py", 99, 1, "ND101"),
        ("m.py", 3, 1, "ND101"),
        ("m.py", 3, 1, "ND300"),
        ("m.py", 3, 9, "ND101"),
        ("m.py", 20, 1, "ND101"),
    ]
    assert ordered[-1].location is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 2)), max_size=12),
    st.randoms(),
)
def test_order_of_arrival_does_not_matter(sites, rng: random.Random):
    found = [finding(f"{name}.{number}", line=line, evidence={"n": number}) for name, number, line in sites]
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert group(found) == group(shuffled)
    assert sum(len(one.sites) for one in group(found)) == len(found)


def test_natural():
    assert sorted(["a.10.b", "a.9", "a", "b.1"], key=natural) == ["a", "a.9", "a.10.b", "b.1"]


def test_only_the_indices_that_differ_are_masked():
    from normdoctor.findings import masked

    assert masked(("layers.0.fc2", "layers.11.fc2")) == "`layers.*.fc2`"
    assert masked(("a.0.fc1", "a.0.fc2", "head")) == "`a.0.fc*` (likewise `head`)"
    assert masked(("", "x.1")) == "the model (likewise `x.1`)"
