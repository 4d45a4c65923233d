"""The reference page says what the code does: its example is in order, and every key stands on it."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

import fivefold
from fivefold.errors import FivefoldError
from fivefold.governance import study_check
from fivefold.study.expression_parts import FUNCTIONS
from fivefold.study.schema import DictionaryFile, PrivacyFile, StudyFile, VariableFile

PAGE = (Path(fivefold.__file__).parents[1] / "docs" / "reference" / "study-file.md").read_text(encoding="utf-8")


def test_the_example_is_in_order(tmp_path: Path) -> None:
    study, dictionary = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    (tmp_path / "dictionary.yaml").write_text(dictionary, encoding="utf-8")
    checked = study_check.check(tmp_path / "study.yaml", today=date(2026, 1, 1))
    assert checked.faults == ()
    assert checked.notes == ()
    assert all("public key" in f.what for f in checked.open)


@pytest.mark.parametrize("model", [StudyFile, PrivacyFile, DictionaryFile, VariableFile])
def test_every_key_stands_on_the_page(model: type) -> None:
    for key, field in model.model_fields.items():
        assert f"`{key}`" in PAGE, key
        if model is PrivacyFile and isinstance(field.default, int):
            shown = f"{field.default:,}".replace(",", " ")
            assert re.search(rf"\| `{key}` \| {shown} \|", PAGE), key


def test_every_function_and_exit_code_stands_on_the_page() -> None:
    assert all(re.search(rf"`{name}\b", PAGE) for name in FUNCTIONS)
    codes = {c.exit_code for c in _below(FivefoldError)}
    assert {int(c) for c in re.findall(r"\b(\d\d)\b [a-z]", PAGE.split("Exit codes:")[1])} <= codes


def _below(cls: type[FivefoldError]) -> set[type[FivefoldError]]:
    return {cls}.union(*(_below(c) for c in cls.__subclasses__()))
