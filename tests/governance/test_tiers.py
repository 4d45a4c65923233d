"""A tier in a signed policy is the tier that is applied: without one of its conditions the file does not parse."""

from __future__ import annotations

import pytest

from fivefold.errors import PolicyRefuses
from fivefold.governance.policy import Policy
from fivefold.governance.safe_settings import judge
from fivefold.governance.tiers import TIERS
from tests.governance.test_policy import study, text

WHOLE = {
    "tier": "restricted",
    "people": "{required: [lead, checker], training: [{course: sdc, roles: [checker]}], terms: v1}",
    "projects": "{reviewers: 2, organisations: 2}",
    "settings": "{encryption: true, no_network: true}",
    "data": "{deidentification: {file: d.txt, sha256: " + "ab" * 32 + "}}",
    "budget": "{epsilon: 3, delta: 1.0e-6}",
    "minimum_persons": "10",
}
WEAKER = {
    "people.required": {"people": "{required: [checker], training: [{course: sdc, roles: [checker]}], terms: v1}"},
    "people.training": {"people": "{required: [lead, checker], terms: v1}"},
    "people.terms": {"people": "{required: [lead, checker], training: [{course: sdc, roles: [checker]}]}"},
    "projects.reviewers: 1": {"projects": None},
    "projects.reviewers: 2": {"projects": "{reviewers: 2, organisations: 1}"},
    "settings.encryption": {"settings": "{no_network: true}"},
    "settings.no_network": {"settings": "{encryption: true}"},
    "data.deidentification": {"data": "{unreadable: 5}"},
    "a `budget`": {"budget": None},
    "site_totals": {"site_totals": "permitted"},
    "user_models": {"user_models": "permitted"},
    "minimum_persons": {"minimum_persons": "9"},
}


def test_each_condition_is_played() -> None:
    assert len(WEAKER) == len(TIERS["restricted"])
    assert all(any(words.startswith(name) for name in WEAKER) for words, _ in TIERS["restricted"])


@pytest.mark.parametrize("missing", WEAKER)
def test_a_tier_needs_each_of_its_conditions(missing: str) -> None:
    with pytest.raises(PolicyRefuses) as found:
        Policy.of(text(**WHOLE | WEAKER[missing]))
    assert f"tier restricted asks for {missing}" in found.value.message


def test_a_lower_tier_asks_for_less() -> None:
    Policy.of(text(**WHOLE | WEAKER["people.terms"] | {"tier": "controlled"}))
    Policy.of(text(tier="open"))
    with pytest.raises(PolicyRefuses):
        Policy.of(text(tier="secret"))
    with pytest.raises(PolicyRefuses):
        Policy.of(text(tier="controlled"))


def test_a_whole_restricted_policy_is_read_and_told() -> None:
    policy = Policy.of(text(**WHOLE))
    told = next(d for d in judge(policy, study()) if d.rule == "tier")
    assert told.line == policy.line("tier") > 0
    assert "restricted" in told.sentence
