"""The canonical form, the digest, the signature: lossless, and void after any change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem, SignatureWrong, StudyAltered, StudyInvalid, StudyNotFound
from fivefold.study import yaml
from fivefold.study.definition import Study
from fivefold.study.digest import SignedStudy, canonical, digest, load_signed, parsed_json, sign_study, study_from
from fivefold.study.document import document

PRIVATE = bytes([7]) * 32
PUBLIC = keys.public_of(PRIVATE).hex()
SITE_KEYS = [keys.public_of(bytes([i]) * 32).hex() for i in range(10, 16)]

name = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).map(lambda n: f"v_{n}")
text = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
number = st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: x + 0.0)
option = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def variables(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["number", "integer", "category", "boolean", "date", "text"]))
    out: dict[str, Any] = {"label": draw(text), "type": kind, "iri": draw(st.just("") | text)}
    if kind == "number":
        low = draw(number)
        out |= {"minimum": low, "maximum": low + abs(low) + 1, "unit": draw(text)}
    if kind == "integer":
        low = draw(st.integers(-1000, 1000))
        out |= {"minimum": low, "maximum": low + draw(st.integers(1, 1000))}
    if kind == "category":
        codes = draw(st.lists(text, min_size=2, max_size=5, unique=True))
        labels = draw(st.lists(text, min_size=len(codes), max_size=len(codes), unique=True))
        out |= {"codes": dict(zip(codes, labels, strict=True))}
        out["missing_codes"] = [c for c in draw(st.lists(text, max_size=2, unique=True)) if c not in codes]
    return out


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    known = draw(st.dictionaries(name, variables(), min_size=1, max_size=5))
    used = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, unique=True))
    return {
        "title": draw(text),
        "question": draw(text),
        "lead": {"name": draw(text), "organisation": draw(text), "public_key": PUBLIC},
        "sites": [{"name": f"s{i}", "public_key": k, "organisation": draw(text)} for i, k in enumerate(SITE_KEYS)],
        "dictionary": {"name": draw(text), "version": draw(text), "variables": known},
        "person": "person",
        "cohort": {"include": [f"not ismissing({n})" for n in used if known[n]["type"] != "text"]},
        "variables": {n: draw(text) for n in used},
        "derived": [
            {"name": "known", "label": draw(text), "type": "boolean", "expression": f"not ismissing({n})"}
            for n in used[:1]
            if known[n]["type"] != "text"
        ],
        "analyses": [
            {"name": "a", "method": draw(text), "variables": used, "options": draw(st.dictionaries(text, option, max_size=4))},
            {"name": "b", "method": draw(text), "formula": draw(text)},
        ],
        "envelope": {"variables": used, "methods": [draw(text)], "fits": draw(st.integers(0, 9))},
        "privacy": {"minimum_persons": draw(st.integers(1, 99)), "colluders": draw(st.integers(0, 2))},
        "outputs": {"planned": draw(st.lists(text, max_size=3))},
        "agreements": {"ethics": draw(text), "purpose": draw(text), "expires": "2031-12-31"},
        "seed": draw(st.integers(0, 2**53 - 1)),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(studies())
def test_yaml_study_canonical_study_loses_nothing(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")  # every JSON text is a YAML text
    study = yaml.load(path)
    form = canonical(study)
    again = study_from(form)
    assert again == study
    assert orders(again) == orders(study)
    assert canonical(again) == form
    assert rfc8785.dumps(parsed_json(form)) == form
    assert digest(study) == hashlib.sha256(form).hexdigest()
    signed = load_signed(sign_study(study, PRIVATE).to_bytes())
    assert signed == SignedStudy(study, digest(study), signed.signature)


def orders(study: Study) -> list[Any]:
    """Everything whose order means something and that `==` on mappings does not see."""
    return [
        list(study.variables),
        list(study.dictionary.variables),
        [list(v.codes.items()) for v in study.dictionary.variables.values()],
        [repr(a.options) for a in study.analyses],
    ]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    data = {
        "title": "T",
        "question": "Q",
        "lead": {"name": "L", "organisation": "O", "public_key": PUBLIC},
        "sites": [{"name": f"s{i}", "public_key": k} for i, k in enumerate(SITE_KEYS[:3])],
        "dictionary": {
            "name": "d",
            "version": "1",
            "variables": {
                "age": {"label": "A", "type": "number", "minimum": 0, "maximum": 9},
                "sex": {"label": "S", "type": "category", "codes": {"m": "male", "f": "female"}},
            },
        },
        "person": "p",
        "variables": {"age": "why", "sex": "why"},
        "analyses": [{"name": "a", "method": "statistics", "variables": ["age"], "options": {"bins": 10}}],
        "agreements": {"ethics": "E", "purpose": "P", "expires": "2031-12-31"},
    }
    path = tmp_path / "one.yaml"
    path.write_text(json.dumps(data))
    return yaml.load(path)


def test_every_part_of_the_study_counts(study: Study) -> None:
    before = digest(study)
    sex = study.dictionary["sex"]
    swapped = dataclasses.replace(sex, codes=dict(reversed(list(sex.codes.items()))))
    variables = dict(study.dictionary.variables)
    changes: list[dict[str, Any]] = [
        {"title": "T2"},
        {"lead": dataclasses.replace(study.lead, name="M")},
        {"sites": study.sites[::-1]},
        {"dictionary": dataclasses.replace(study.dictionary, variables=variables | {"sex": swapped})},
        {"dictionary": dataclasses.replace(study.dictionary, variables=dict(reversed(variables.items())))},
        {"variables": dict(reversed(list(study.variables.items())))},
        {"privacy": dataclasses.replace(study.privacy, minimum_persons=6)},
        {"analyses": (dataclasses.replace(study.analyses[0], options={"bins": 11}),)},
        {"seed": 1},
    ]
    after = {digest(dataclasses.replace(study, **c)) for c in changes}
    assert len(after) == len(changes)
    assert before not in after


def test_only_the_lead_signs(study: Study) -> None:
    with pytest.raises(KeyProblem, match="not that of the lead"):
        sign_study(study, bytes([8]) * 32)


def test_any_changed_byte_voids_the_signature(study: Study) -> None:
    data = sign_study(study, PRIVATE).to_bytes()
    for i in range(len(data) - 1):
        changed = bytearray(data)
        changed[i] ^= (1, 32)[i % 2] if chr(data[i]).isalpha() else 1
        with pytest.raises(FivefoldError) as caught:
            load_signed(bytes(changed))
        assert caught.value.exit_code in (12, 13, 42)


def test_a_change_with_a_digest_of_its_own_is_found(study: Study) -> None:
    value = json.loads(sign_study(study, PRIVATE).to_bytes())
    value["study"]["privacy"]["minimum_persons"] = 1
    with pytest.raises(StudyAltered, match="changed after it was signed"):
        load_signed(rfc8785.dumps(value))
    value["digest"] = hashlib.sha256(rfc8785.dumps(value["study"])).hexdigest()
    with pytest.raises(SignatureWrong, match="not signed by the key of its lead"):
        load_signed(rfc8785.dumps(value))


def test_a_signature_made_for_something_else_is_refused(study: Study) -> None:
    value = json.loads(sign_study(study, PRIVATE).to_bytes())
    value["signature"] = keys.sign(PRIVATE, canonical(study), "variation").hex()
    with pytest.raises(SignatureWrong):
        load_signed(rfc8785.dumps(value))
    value["signature"] = "ab"
    with pytest.raises(SignatureWrong, match="128 hex digits"):
        load_signed(rfc8785.dumps(value))


def test_a_signed_study_is_checked_as_strictly_as_a_file(study: Study) -> None:
    """A lead who signs a study that no file could say gains nothing: it is not loaded."""
    changes: list[tuple[dict[str, Any], str]] = [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"person": "age"}, "identifies persons"),
        ({"privacy": document(study)["privacy"] | {"minimum_sites": 2}}, "subtracting"),
        ({"variables": [{"name": "age", "why": "w"}, {"name": "age", "why": "w"}]}, "double"),
        ({"title": " T"}, "canonical form"),
        ({"format": "fivefold study 2"}, "format"),
    ]
    for change, words in changes:
        value = document(study) | change
        data = rfc8785.dumps(value)
        signed = {
            "format": "fivefold signed study 1",
            "study": value,
            "digest": hashlib.sha256(data).hexdigest(),
            "signature": keys.sign(PRIVATE, data, "study").hex(),
        }
        with pytest.raises((StudyInvalid, StudyAltered), match=words):
            load_signed(rfc8785.dumps(signed))


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"[" * 100_000, b'{"study": 1}'])
def test_what_is_no_signed_study(data: bytes) -> None:
    with pytest.raises(StudyInvalid, match="not a"):
        load_signed(data)
    with pytest.raises(StudyInvalid):
        study_from(data)


def test_too_large_and_absent(tmp_path: Path) -> None:
    with pytest.raises(StudyInvalid, match="8 MiB"):
        load_signed(b" " * ((8 << 20) + 1))
    with pytest.raises(StudyNotFound, match="cannot be read"):
        load_signed(tmp_path / "absent.json")


def test_from_a_file(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "study.signed.json"
    path.write_bytes(sign_study(study, PRIVATE).to_bytes())
    loaded, its_digest, signature = load_signed(path)
    assert (loaded, its_digest) == (study, digest(study))
    keys.verify(bytes.fromhex(PUBLIC), canonical(study), signature, "study")
