"""A study's twin with another seed: nothing else may differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fivefold.auth.keys import public_of
from fivefold.errors import KeyProblem, StudyAltered, StudyInvalid, StudyNotFound
from fivefold.study.definition import Study
from fivefold.study.digest import sign_study
from fivefold.study.reseed import load_reseeded, reseeded, reseeded_file, sign_reseeded
from fivefold.study.yaml import load

LEAD = bytes([1]) * 32
EXAMPLE = Path(__file__).parents[2] / "examples" / "breast" / "study.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("reseed")
    text = EXAMPLE.read_text("utf-8").replace("<the lead's key>", public_of(LEAD).hex())
    for i, site in enumerate(("alder", "birch", "cedar", "elm", "fir")):
        text = text.replace(f"<the key of {site}>", public_of(bytes([i + 2]) * 32).hex())
    (folder / "study.yaml").write_text(text, "utf-8")
    (folder / "dictionary.yaml").write_bytes(EXAMPLE.with_name("dictionary.yaml").read_bytes())
    return load(folder / "study.yaml")


def test_only_the_seed_differs(study: Study, tmp_path: Path) -> None:
    twin = sign_reseeded(study, 7, LEAD)
    assert twin.study.seed == 7
    assert dataclasses.replace(twin.study, seed=study.seed) == study
    signed, found = tmp_path / "study.signed.json", sign_study(study, LEAD)
    assert load_reseeded(signed, found, study.seed) is found
    reseeded_file(signed, 7).write_bytes(twin.to_bytes())
    assert load_reseeded(signed, found, 7) == twin


def test_what_is_not_taken(study: Study, tmp_path: Path) -> None:
    signed, found = tmp_path / "study.signed.json", sign_study(study, LEAD)
    with pytest.raises(StudyNotFound, match="nobody has signed it with 7") as nobody:
        load_reseeded(signed, found, 7)
    assert "study.seed-7.signed.json" in nobody.value.hint
    other = sign_study(dataclasses.replace(study, seed=7, title="Another"), LEAD)
    reseeded_file(signed, 7).write_bytes(other.to_bytes())
    with pytest.raises(StudyAltered, match="more than its seed"):
        load_reseeded(signed, found, 7)
    reseeded_file(signed, 7).write_bytes(sign_reseeded(study, 7, LEAD).to_bytes().replace(b'"seed":7', b'"seed":8'))
    with pytest.raises(StudyAltered):
        load_reseeded(signed, found, 7)
    for seed in (-1, 2**53):
        with pytest.raises(StudyInvalid):
            reseeded(study, seed)
    with pytest.raises(KeyProblem):
        sign_reseeded(study, 7, bytes([9]) * 32)
