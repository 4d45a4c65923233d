"""The published JSON Schemas are those of the code, and they accept what the code accepts."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from fivefold.study.new import answers_of, skeleton
from fivefold.study.schema import SCHEMAS, json_schema


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schema_is_current(name: str) -> None:
    published = files("fivefold") / "schemas" / f"{name}.schema.json"
    assert published.read_text(encoding="utf-8") == json_schema(name), (
        f"write it again: fivefold study schema {name} > fivefold/schemas/{name}.schema.json"
    )


def loaded(text: str) -> Any:
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text), default=str))


def test_a_new_study_is_valid_and_a_wrong_key_is_not(tmp_path: Path) -> None:
    from datetime import date

    for file, text in skeleton(answers_of({}, date(2026, 1, 1))).items():
        schema = json.loads(json_schema(file.split(".")[0]))
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        data = loaded(text)
        validator.validate(data)
        assert list(validator.iter_errors(data | {"titel": 1}))
