"""The JSON schema of the configuration: it allows what the reader allows, and nothing else."""

from __future__ import annotations

import tomllib

import pytest

from normdoctor.config import Settings
from normdoctor.configfile import File, read
from normdoctor.configschema import keys, schema
from normdoctor.errors import ConfigError
from normdoctor.rules import all_rules

TYPES = {"string": str, "array": list, "object": dict, "boolean": bool, "integer": int}


def problems(value, rule, place="$"):
    """What a value lacks, in the part of JSON schema that is used here."""
    known = {"type", "enum", "anyOf", "items", "properties", "additionalProperties", "default", "description"}
    known |= {"title", "$schema", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    known |= {"minItems", "maxItems", "prefixItems"}
    assert set(rule) <= known, set(rule) - known
    if "enum" in rule and value not in rule["enum"]:
        return [f"{place}: not one of {rule['enum']}"]
    if "anyOf" in rule:
        found = [problems(value, one, place) for one in rule["anyOf"]]
        return [] if [] in found else found[0]
    if rule.get("type") == "number":
        return (
            [] if isinstance(value, int | float) and not isinstance(value, bool) else [f"{place}: no number"]
        )
    if rule.get("type") == "null":
        return [f"{place}: not null"]
    if "type" in rule and type(value) is not TYPES[rule["type"]]:
        return [f"{place}: not a {rule['type']}"]
    found = []
    if isinstance(value, list):
        for item in value:
            found += problems(item, rule.get("items", {}), f"{place}[]")
    if isinstance(value, dict):
        for key, item in value.items():
            inner = rule.get("properties", {}).get(key, rule.get("additionalProperties", {}))
            found += (
                [f"{place}.{key}: unknown"] if inner is False else problems(item, inner, f"{place}.{key}")
            )
    return found


GOOD = [
    "",
    'targets = ["a.py"]\nselect = ["ND1"]\nfail-on = "never"\nmin-confidence = "low"\npreview = true\n',
    '[targets]\nsmall = "a.py:Net"\n[inputs]\nsmall = "1,2"\nlarge = ["1,2", "3"]\n',
    '[rules]\nND201 = "error"\nbias-before-norm = "ignore"\nND101 = "warn"\n',
    "[options.ND202]\nwarn-from = 0.3\n[options.batchnorm-eps]\n",
    '[per-file-ignores]\n"tests/*" = ["ND3"]\n[per-module-ignores]\n"stem.*" = ["ALL"]\n',
    'baseline = "b.json"\noutput-format = "sarif"\nimport-timeout = 3\ndevice = "cpu"\nloss = "mse_loss"\n',
    '[roles]\nMyNorm = "norm"\n',
]
BAD = {
    'selct = ["ND1"]': "selct: unknown option, did you mean `select`?",
    'select = "ND1"': "select: expected `array`, found `str`",
    'fail-on = "warn"': "fail-on: expected one of `error`, `warning`, `info`, `never`; found `warn`",
    'output-format = "yaml"': "output-format: expected one of",
    '[rules]\nND201 = "loud"': "rules.ND201: expected one of",
    '[rules]\nbatchnorm-epss = "error"': "unknown rule `batchnorm-epss`",
    "[options.ND202]\nwarn-form = 0.3": "options.ND202.warn-form: unknown option, did you mean `warn-from`?",
    '[options.ND202]\nwarn-from = "high"': "options.ND202.warn-from: expected `float`, found `str`",
    "[options.ND999]\na = 1": "options.ND999: unknown rule `ND999`",
    '[roles]\nMyNorm = "nrom"': "roles.MyNorm: expected one of",
    "baseline = 3": "baseline: expected `str`, found `int`",
    "preview = 1": "preview: expected `bool`, found `int`",
}


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right(tmp_path, text):
    path = tmp_path / "normdoctor.toml"
    path.write_text(text)
    assert isinstance(read(path), Settings)
    assert problems(tomllib.loads(text), schema()) == []


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("name", ["normdoctor.toml", "pyproject.toml"])
def test_what_is_wrong_is_named_with_its_key(tmp_path, text, name):
    path = tmp_path / name
    prefix = "tool.normdoctor." if name == "pyproject.toml" else ""
    lines = [f"[{prefix}{line[1:]}" if line.startswith("[") else line for line in text.splitlines()]
    path.write_text("\n".join([*(["[tool.normdoctor]"] if prefix else []), *lines]))
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"{name}: {prefix}")
    assert BAD[text] in caught.value.message
    assert problems(tomllib.loads(text), schema()) != []


def test_every_option_of_every_rule_is_in_the_schema():
    options = schema()["properties"]["options"]["properties"]
    for rule in all_rules():
        names = {name.replace("_", "-") for name in rule.Options.__struct_fields__}
        for key in (rule.code, rule.name):
            assert set(options.get(key, {"properties": {}})["properties"]) == names
            assert set(schema()["properties"]["rules"]["properties"]) >= {key}


def test_a_baseline_lies_beside_its_configuration(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "normdoctor.toml"
    path.write_text('baseline = "known/b.json"\n')
    monkeypatch.chdir(tmp_path / "deep")
    assert read(path).baseline.as_posix() == "../known/b.json"


def test_every_key_has_a_meaning():
    assert [row[0] for row in keys()] == list(File.__struct_encode_fields__)
    for _, kind, _, text in keys():
        assert kind
        assert text.endswith(".")
