"""Within the envelope and outside; a signed variation and every way to forge one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
import rfc8785

from fivefold.auth import keys
from fivefold.errors import FivefoldError, FormulaInvalid, KeyProblem, NotApproved, SignatureWrong, StudyAltered, StudyInvalid
from fivefold.study.definition import Agreements, Analysis, Envelope, Lead, Study, StudySite
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.envelope import load_variation, load_variations, sign_variation, varied, within
from tests.plain_study import study_of

PRIVATE = bytes([7]) * 32
NAMES = ("outcome", "age", "weight", "sex")


def study() -> Study:
    variables: Mapping[str, Variable] = {n: Variable(n, n, "number", minimum=0, maximum=9) for n in NAMES}
    variables = dict(variables) | {"sex": Variable("sex", "Sex", "category", codes={"f": "female", "m": "male"})}
    return study_of(
        Analysis("model", "glm", "outcome ~ age + weight", options={"family": "gaussian"}),
        lead=Lead("L", "O", keys.public_of(PRIVATE).hex()),
        sites=tuple(StudySite(f"s{i}", keys.public_of(bytes([i]) * 32).hex()) for i in range(1, 4)),
        dictionary=Dictionary("d", "1", variables),
        person="p",
        variables=dict.fromkeys(NAMES, "why"),
        envelope=Envelope(("outcome", "age", "sex"), ("glm", "statistics"), ('sex == "f"',), 3),
        agreements=Agreements("E", "P", "2031-12-31"),
    )


def test_a_variation_inside_is_signed_and_read_back() -> None:
    other = varied(study(), "model", "model-f", formula="outcome ~ age", subgroup='sex  ==  "f"')
    assert other == Analysis("model-f", "glm", "outcome ~ age", subgroup='sex  ==  "f"', options={"family": "gaussian"})
    variation = sign_variation(study(), "model", other, PRIVATE)
    assert load_variation(variation.to_bytes(), study()) == variation


def test_a_list_of_variables_and_another_method() -> None:
    other = varied(study(), "model", "table", formula="", method="statistics", variables=("age", "sex"))
    assert other.options == {}
    within(study(), other)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": "model"}, "envelope_name"),
        ({"method": "cox"}, "envelope_methods"),
        ({"formula": "outcome ~ age + weight"}, "envelope_variables"),
        ({"formula": "weight ~ age"}, "envelope_variables"),
        ({"formula": "outcome ~ age + strata(weight)"}, "envelope_variables"),
        ({"variables": ("weight",)}, "envelope_variables"),
        ({"subgroup": 'sex == "m"'}, "envelope_subgroups"),
        ({"options": {"family": "poisson"}}, "envelope_options"),
    ],
)
def test_outside(change: dict[str, Any], rule: str) -> None:
    inside = varied(study(), "model", "other", formula="outcome ~ age")
    within(study(), inside)
    outside = dataclasses.replace(inside, **change)
    with pytest.raises(NotApproved) as caught:
        within(study(), outside)
    assert caught.value.rule == rule
    assert "sign a new study" in caught.value.hint or rule == "envelope_name"
    with pytest.raises(NotApproved):
        sign_variation(study(), "model", outside, PRIVATE)


def test_no_envelope_no_variation() -> None:
    closed = dataclasses.replace(study(), envelope=Envelope())
    with pytest.raises(NotApproved, match="allows no variation"):
        within(closed, varied(closed, "model", "other", formula="outcome ~ age"))


def test_what_cannot_be_read_is_not_inside() -> None:
    with pytest.raises(FormulaInvalid):
        within(study(), varied(study(), "model", "other", formula="outcome ~ age +"))
    with pytest.raises(StudyInvalid, match="no analysis 'modell'") as caught:
        varied(study(), "modell", "other")
    assert caught.value.hint == "Did you mean 'model'?"


def test_only_the_lead_varies() -> None:
    with pytest.raises(KeyProblem, match="not that of the lead"):
        sign_variation(study(), "model", varied(study(), "model", "other", formula="outcome ~ age"), bytes([9]) * 32)


def test_a_forged_variation_is_refused() -> None:
    data = sign_variation(study(), "model", varied(study(), "model", "other", formula="outcome ~ age"), PRIVATE).to_bytes()
    for i in range(len(data) - 1):
        changed = bytearray(data)
        changed[i] ^= (1, 32)[i % 2] if chr(data[i]).isalpha() else 1
        with pytest.raises(FivefoldError):
            load_variation(bytes(changed), study())
    with pytest.raises(StudyAltered, match="another study"):
        load_variation(data, dataclasses.replace(study(), title="T2"))
    value = json.loads(data)
    value["analysis"]["formula"] = "outcome ~ sex"
    with pytest.raises(SignatureWrong, match="key of the study's lead"):
        load_variation(rfc8785.dumps(value), study())


def test_a_lead_who_signs_what_lies_outside_is_refused_at_the_site() -> None:
    value = json.loads(
        sign_variation(study(), "model", varied(study(), "model", "other", formula="outcome ~ age"), PRIVATE).to_bytes()
    )
    for part, words in [({"formula": "outcome ~ weight"}, "weight"), ({"surprise": 1}, "no analysis as a study file")]:
        forged = {k: v for k, v in value.items() if k != "signature"} | {"analysis": value["analysis"] | part}
        forged["signature"] = keys.sign(PRIVATE, rfc8785.dumps(forged), "variation").hex()
        with pytest.raises((NotApproved, StudyInvalid), match=words):
            load_variation(rfc8785.dumps(forged), study())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "fivefold signed study 1"}'])
def test_what_is_no_variation(data: bytes) -> None:
    with pytest.raises(StudyInvalid):
        load_variation(data, study())


def test_a_run_s_variations_have_names_of_their_own() -> None:
    one, two = (
        sign_variation(study(), "model", varied(study(), "model", name, formula="outcome ~ age"), PRIVATE)
        for name in ("a", "b")
    )
    assert load_variations([one.to_bytes(), two.to_bytes()], study()) == (one, two)
    assert one.statement_digest != two.statement_digest
    assert load_variations([one.to_bytes()], study())[0].statement_digest == one.statement_digest
    with pytest.raises(StudyInvalid, match="two variations are called 'a'"):
        load_variations([one.to_bytes(), one.to_bytes()], study())


def test_a_variation_is_of_the_same_sites() -> None:
    """Who takes part in an analysis was approved; a variation cannot bring somebody else in, or leave one out."""
    base = study()
    three = dataclasses.replace(base, analyses=(dataclasses.replace(base.analyses[0], sites=("s1", "s2", "s3")),))
    other = varied(three, "model", "model-a", formula="outcome ~ age")
    assert load_variation(sign_variation(three, "model", other, PRIVATE).to_bytes(), three).analysis.sites == ("s1", "s2", "s3")
    wider = sign_variation(three, "model", dataclasses.replace(other, sites=()), PRIVATE).to_bytes()
    with pytest.raises(NotApproved) as caught:
        load_variation(wider, three)
    assert caught.value.rule == "envelope_sites"
