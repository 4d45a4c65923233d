"""The published JSON Schemas are those of the code, and they accept what the code accepts."""

from __future__ import annotations

import json
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

import fivefold
from fivefold.cli.main import run
from fivefold.cli.schemas import MODELS, published
from fivefold.data.mapping import Mapping
from fivefold.errors import MappingInvalid, PolicyRefuses
from fivefold.governance.policy import Policy
from fivefold.site.folder import COMMENTS, MAPPING_SKELETON, policy_text, policy_values
from fivefold.study.new import answers_of, skeleton

ROOT = Path(fivefold.__file__).parents[1]


@pytest.mark.parametrize("kind", MODELS)
def test_published_schema_is_current(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "schema", kind]) == 0
    text = (files("fivefold") / "schemas" / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out, (
        f"write it again: fivefold study schema {kind} > fivefold/schemas/{kind}.schema.json"
    )


def loaded(text: str) -> Any:
    """As an editor sees it: JSON's values, whose keys are texts."""
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text), default=str))


def accepts(kind: str, data: Any) -> bool:
    schema = json.loads(published(kind))
    jsonschema.Draft202012Validator.check_schema(schema)
    return not list(jsonschema.Draft202012Validator(schema).iter_errors(data))


POLICY = policy_text(policy_values("basel", "A. Custodian", "ab" * 32, date(2026, 1, 1)))
FILES = {
    **{name.split(".")[0]: text for name, text in skeleton(answers_of({}, date(2026, 1, 1))).items()},
    "mapping": MAPPING_SKELETON,
    "site": POLICY,
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_new_file_is_valid_and_a_wrong_key_is_not(kind: str) -> None:
    data = loaded(FILES[kind])
    assert accepts(kind, data)
    assert not accepts(kind, data | {"titel": 1})


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/*/sites/*/mapping.yaml")), ids=lambda p: f"{p.parts[-4]}-{p.parent.name}"
)
def test_the_mappings_of_the_examples_are_valid(path: Path) -> None:
    assert accepts("mapping", loaded(path.read_text("utf-8")))


HEAD = "source: {kind: csv, path: x.csv}\nperson: id\nvariables:\n  "


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("age: AGE", True),
        ("age: {column: AGE, unit: month}", True),
        ("sex: {column: s, codes: {1: male, 2: 3}, missing: [9, x, 1.5, true]}", True),
        ("day: {constant: 2026-01-31}", True),
        ("day: {constant: 7, on_invalid: refuse}", True),
        ("smoker: {absent: true}", True),
        ("smoker: {absent: false}", False),
        ("smoker: {}", False),
        ("age: {colum: AGE}", False),
        ("age: {column: AGE, unit: 3}", False),
        ("age: {column: AGE, on_invalid: drop}", False),
        ("age: 3", False),
    ],
)
def test_schema_and_code_agree_on_a_line_of_a_mapping(line: str, good: bool) -> None:
    text = HEAD + line + "\n"
    assert accepts("mapping", loaded(text)) is good
    if good:
        Mapping.of(text.encode())
    else:
        with pytest.raises(MappingInvalid, match="line 4"):
            Mapping.of(text.encode())


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("minimum_difference", "2", True),
        ("minimum_difference", "1", False),
        ("minimum_sites", "2", False),
        ("site_totals", "perhaps", False),
        ("max_epsilon", "1.5", True),
        ("peers", "[{site: b, fingerprint: " + "ab" * 16 + "}]", True),
        ("peers", "[{site: b}]", False),
    ],
)
def test_schema_and_code_agree_on_a_key_of_a_policy(key: str, value: str, good: bool) -> None:
    text = "\n".join(row for row in POLICY.splitlines() if not row.startswith(f"{key}:")) + f"\n{key}: {value}\n"
    assert accepts("site", loaded(text)) is good
    if good:
        Policy.of(text.encode())
    else:
        with pytest.raises(PolicyRefuses):
            Policy.of(text.encode())


def test_each_comment_in_site_yaml_describes_its_key_in_the_schema() -> None:
    properties = json.loads(published("site"))["properties"]
    assert {key: properties[key]["description"] for key in COMMENTS} == COMMENTS
