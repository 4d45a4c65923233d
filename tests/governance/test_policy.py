"""site.yaml: it parses or permits nothing, and every decision names its rule and line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.auth import keys
from fivefold.errors import FivefoldError, PolicyRefuses
from fivefold.governance.policy import STUDY_RULES, Policy, decide, needed, recognised
from fivefold.protocol.questions import Field, Gather, Relay, Sum, site_step
from fivefold.study.definition import Agreements, Analysis, DifferentialPrivacy, Envelope, Lead, Privacy, Study, StudySite
from tests.plain_study import study_of

TODAY = date(2026, 11, 24)
LEAD, OTHER = keys.public_of(keys.new_key()).hex(), keys.public_of(keys.new_key()).hex()
SITES = {name: keys.public_of(keys.new_key()) for name in ("basel", "bern", "genf", "chur", "zug")}


OWN_CODE = {"kind": "code", "source": "x = 1\n", "digest": hashlib.sha256(b"x = 1\n").hexdigest()}


def noise(epsilon: float) -> DifferentialPrivacy:
    return DifferentialPrivacy("person", epsilon, 1e-6, 1.0)


def text(**changes: Any) -> bytes:
    lines = {
        "version": "1",
        "site": "basel",
        "asset": "records",
        "expires": "2027-11-24",
        "custodians": f"[{{name: C, key: {OTHER}, from: 2026-01-01, until: 2027-12-31}}]",
        "peers": "["
        + ", ".join(f'{{site: {n}, fingerprint: "{keys.fingerprint(k)}"}}' for n, k in list(SITES.items())[1:])
        + "]",
        "methods": "[glm]",
    } | changes
    return "".join(f"{k}: {v}\n" for k, v in lines.items() if v is not None).encode()


def policy(**changes: Any) -> Policy:
    return Policy.of(text(**changes))


def study(**changes: Any) -> Study:
    own: dict[str, Any] = {
        "lead": Lead("L", "O", LEAD),
        "sites": tuple(StudySite(n, k.hex()) for n, k in SITES.items()),
        "agreements": Agreements("E", "P", "2027-06-30"),
    }
    return study_of(Analysis("a", "glm"), **(own | changes))


@site_step("toy.sums")
def sums(table: Any) -> Mapping[str, Any]:
    return {"n": np.zeros(1)}


@site_step("toy.rows", leaves="reply")
def rows(table: Any) -> Mapping[str, Any]:
    return {"n": np.zeros(1)}


FIELD = (Field("n", "count", 10.0, (1,)),)


def test_a_plain_study_is_permitted_and_the_rule_named() -> None:
    decision = decide(policy(), study(), today=TODAY)
    assert decision.permit
    assert (decision.rule, decision.line) == ("methods", 7)
    assert decision.enforce() is decision


@pytest.mark.parametrize(
    ("rule", "changes", "asked"),
    [
        ("expires", {"expires": "2026-11-23"}, {}),
        ("expires", {}, {"agreements": Agreements("E", "P", "2026-11-23")}),
        ("site", {"site": "luzern"}, {}),
        ("leads", {"leads": f"[{OTHER}]"}, {}),
        ("methods", {"methods": "[cox]"}, {}),
        ("methods", {"methods": "[]"}, {}),
        ("methods", {}, {"envelope": Envelope(methods=("cox",), fits=3)}),
        ("adversary", {}, {"privacy": Privacy(adversary="curious")}),
        ("minimum_persons", {"minimum_persons": "10"}, {}),
        ("minimum_sites", {"minimum_sites": "4"}, {}),
        ("minimum_difference", {"minimum_difference": "3"}, {}),
        ("colluders", {"colluders": "1"}, {}),
        ("colluders", {"colluders": "3"}, {"privacy": Privacy(colluders=3)}),
        ("honest", {"honest": "3"}, {}),
        ("exact_sums", {"exact_sums": "refused"}, {}),
        (
            "max_epsilon",
            {"max_epsilon": "1"},
            {"privacy": Privacy(differential_privacy=noise(2.0))},
        ),
        (
            "max_epsilon",
            {"max_epsilon": "1"},
            {"privacy": Privacy(differential_privacy=noise(float("nan")))},
        ),
        ("max_iterations", {}, {"analyses": (Analysis("a", "glm", options={"max_iterations": 26}),)}),
        ("user_models", {}, {"analyses": (Analysis("a", "glm", options={"model": OWN_CODE}),)}),
        ("peers", {"peers": "[]"}, {}),
        ("peers", {"peers": f"[{{site: bern, fingerprint: {OTHER}}}]"}, {}),
    ],
)
def test_a_study_weaker_than_the_policy_is_refused(rule: str, changes: dict[str, Any], asked: dict[str, Any]) -> None:
    decision = decide(policy(**changes), study(**asked), today=TODAY)
    assert not decision.permit
    assert decision.rule == rule
    written = text(**changes).decode().splitlines()
    if decision.line:
        assert written[decision.line - 1].startswith(f"{rule}:")
    else:
        assert not any(line.startswith(f"{rule}:") for line in written)
    with pytest.raises(PolicyRefuses, match=f"rule {rule}: ") as caught:
        decision.enforce()
    assert caught.value.public() == {"code": "PolicyRefuses", "rule": rule, "variable": ""}


def test_curious_is_admitted_where_the_policy_says_so() -> None:
    asked = study(privacy=Privacy(adversary="curious"))
    assert decide(policy(adversary="curious"), asked, today=TODAY).permit


def test_every_rule_is_exercised() -> None:
    cases = {m.args[1][i][0] for m in test_a_study_weaker_than_the_policy_is_refused.pytestmark for i in range(len(m.args[1]))}
    assert cases == {rule for rule, _ in STUDY_RULES}


def test_an_analysis_and_a_round_are_judged() -> None:
    assert decide(policy(), study(), analysis=Analysis("b", "cox"), today=TODAY).rule == "methods"
    assert decide(policy(max_rounds="3"), study(), round=4, today=TODAY).rule == "max_rounds"
    assert decide(policy(max_rounds="3"), study(), round=3, today=TODAY).permit


def test_anything_but_a_sum_is_refused_unless_named() -> None:
    assert decide(policy(), study(), question=Sum(sums, FIELD), today=TODAY).permit
    for question in (
        Gather(rows, FIELD),
        Gather(sums, FIELD),
        Relay(rows),
        Sum(rows, FIELD),
        (Sum(sums, FIELD), Sum(rows, FIELD)),
    ):
        decision = decide(policy(), study(), question=question, today=TODAY)
        assert (decision.permit, decision.rule) == (False, "steps")
    assert decide(policy(steps="[toy.rows/1]"), study(), question=Gather(rows, FIELD), today=TODAY).permit
    assert not decide(policy(steps="[toy.rows/2]"), study(), question=Gather(rows, FIELD), today=TODAY).permit


@pytest.mark.parametrize("need", ["event_totals", "site_totals"])
def test_what_a_question_needs_must_be_permitted(need: Any) -> None:
    question = Sum(sums, FIELD, needs=(need,))
    decision = decide(policy(), study(), question=question, today=TODAY)
    assert (decision.permit, decision.rule) == (False, need)
    assert decide(policy(**{need: "permitted"}), study(), question=question, today=TODAY).permit
    assert not decide(policy(), study(), question=Sum(sums, FIELD, needs=("something_new",)), today=TODAY).permit


def test_only_recognised_sites_count() -> None:
    mine = policy(peers=f'[{{site: bern, fingerprint: "{keys.fingerprint(SITES["bern"])}"}}]')
    assert recognised(mine, study()) == ("basel", "bern")
    assert needed(mine, study()) == 4  # floor(2 * 5 / 3) + 1
    assert decide(mine, study(), today=TODAY).rule == "peers"
    assert recognised(policy(), study()) == tuple(SITES)
    assert needed(policy(), study(privacy=Privacy(threshold=3, colluders=1, honest=4))) == 5


def test_a_peers_key_may_be_written_whole_or_as_its_fingerprint() -> None:
    whole = policy(peers=f"[{{site: bern, fingerprint: {SITES['bern'].hex()}}}]")
    short = policy(peers=f'[{{site: bern, fingerprint: "{keys.fingerprint(SITES["bern"]).replace(" ", ":").upper()}"}}]')
    assert whole.peers == short.peers


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (text(metods="[glm]"), "line 8: unknown key 'metods'; did you mean 'methods'"),
        (text(site=None), "line 1: key 'site' is missing"),
        (text(minimum_sites="2"), "line 8: minimum_sites: 2 should be greater than or equal to 3"),
        (text(minimum_persons="many"), "line 8: minimum_persons: 'many' should be a whole number"),
        (text(custodians="[]"), "name at least one custodian"),
        (
            text(custodians="[{name: C, key: abc, from: 2026-01-01, until: 2027-12-31}]"),
            "line 5: custodians.0.key: a public key is",
        ),
        (text(site_totals="maybe"), "line 8: site_totals: 'maybe' should be 'permitted' or 'refused'"),
        (text(dominance=".nan"), "line 8: dominance"),
        (text(asset='"a\\eb"'), "line 3: asset: write printable"),
        (text() + b"site: basel\n", "line 8: key 'site' is written twice"),
        (text(peers="&x []"), "line 6: anchors"),
        (text(methods="!!python/name:os.system []"), "line 7"),
        (text() + b"\xff\xfe", "not UTF-8"),
        (b"- a\n", "line 1: a mapping"),
        (b"", "line 1: a mapping"),
        (b"{" * 4000, "nested too deeply"),
        (b"a: [", "line 1: this is not YAML"),
    ],
)
def test_what_does_not_parse_permits_nothing(raw: bytes, words: str) -> None:
    with pytest.raises(PolicyRefuses) as caught:
        Policy.of(raw)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.public() == {"code": "PolicyRefuses", "rule": "", "variable": ""}


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().minimum_persons = 1


def test_a_study_without_a_last_day_is_refused() -> None:
    with pytest.raises(PolicyRefuses, match="name no day"):
        decide(policy(), study(agreements=Agreements("E", "P", "soon")), today=TODAY)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_policy_or_a_refusal(raw: bytes) -> None:
    with pytest.raises(FivefoldError) as caught:
        Policy.of(raw)
    assert isinstance(caught.value, PolicyRefuses)


@given(
    st.integers(3, 50),
    st.integers(3, 6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(2, 4),
    st.sampled_from(["active", "curious"]),
)
def test_a_permitted_study_is_never_weaker(
    persons: int, sites: int, difference: int, colluders: int, honest: int, adversary: Any
) -> None:
    mine = policy(minimum_persons="7", minimum_sites="4", minimum_difference="2", colluders="1", honest="3")
    private = Privacy(
        minimum_persons=persons, minimum_sites=sites, minimum_difference=difference, colluders=colluders, honest=honest,
        adversary=adversary, threshold=5,
    )  # fmt: skip
    decision = decide(mine, replace(study(), privacy=private), today=TODAY)
    strong = persons >= 7 and sites >= 4 and difference >= 2 and colluders >= 1 and honest >= 3 and adversary == "active"
    assert decision.permit is (strong and max(sites, colluders + honest) <= 5 and colluders + honest <= 5)
