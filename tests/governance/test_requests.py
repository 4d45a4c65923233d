"""What hospitals and data owners asked other platforms for in the open, each request played once with the real parts.

The table of docs/satre.md names a test of each, most of them longer journeys; this file holds them side by side, so that one
can read in one place what a site has to be able to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.auth import keys
from fivefold.disclosure.rules import screen
from fivefold.errors import FivefoldError, NotApproved, PolicyRefuses, TooFewPersons
from fivefold.governance import approvals, safe_outputs
from fivefold.governance.output_checks import propose
from fivefold.governance.policy import decide
from fivefold.governance.statements import read_chain
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope, Place
from fivefold.protocol.questions import Field, Gather, site_step
from fivefold.records.audit import entries, verify
from fivefold.site.foretold import foretold
from fivefold.site.node import Node
from fivefold.site.preparation import open_prepared, prepare
from fivefold.study.definition import Analysis, OutputChecker, Outputs
from fivefold.study.digest import load_signed
from tests.governance.test_output_checks import DESCRIBED, NONE, SURVIVAL, description, statuses, study_of, survived
from tests.site.conftest import consortium, now

__all__ = ["consortium", "now"]


def opening(consortium: Any, signed: Any, now: datetime, *, data: bytes = b"", meanwhile: Any = None) -> Any:
    """What the site's real node answers to a coordinator that opens a run: `opened`, or the refusal."""
    node = Node(consortium.site, now=lambda: now)
    if meanwhile is not None:
        meanwhile()
    request = data or m.request(Place(signed.digest, "run1", 1, 1), m.Open(signed.to_bytes()))
    said = Envelope.decode(m.envelopes_of(node.answer(request))[0])
    node.close()
    return m.Refusal.decode(said.body) if said.kind == m.Refusal.kind else said


def log(consortium: Any) -> list[Any]:
    verify(consortium.site.state / "audit.jsonl")
    return list(entries(consortium.site.state / "audit.jsonl"))


def approved(consortium: Any, now: datetime, **chosen: Any) -> Any:
    signed = load_signed(consortium.signed().to_bytes())
    approvals.approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now, **chosen)
    return signed


def rule_of(act: Callable[[], Any]) -> str:
    with pytest.raises(FivefoldError) as found:
        act()
    return found.value.rule


# ---- londonaicentre/FLIP --------------------------------------------------------------------------------------------
def test_flip_1270_a_run_goes_only_to_a_site_that_approved(consortium: Any, now: datetime) -> None:
    signed = consortium.signed()
    assert opening(consortium, signed, now).rule == "no_approval"
    assert not (consortium.site.state / "snapshots").exists()
    approved(consortium, now)
    said = opening(consortium, signed, now)
    assert not isinstance(said, m.Refusal), said


def test_flip_852_the_data_holder_decides_what_leaves(consortium: Any, now: datetime) -> None:
    """The study cannot choose: code, a query or anything else that is no trip of an approved study is refused, and logged."""
    signed = approved(consortium, now)
    for data in (b"import os", json.dumps({"run": "SELECT *"}).encode(), signed.to_bytes()):
        assert opening(consortium, signed, now, data=data).code == "MessageMalformed"
    assert [e.event for e in log(consortium)].count("refused") == 3


def test_flip_1258_every_decision_names_its_rule_and_line(consortium: Any, now: datetime) -> None:
    signed = consortium.signed()
    said = [f.decision for f in foretold(consortium.site, signed.study, signed.digest, now)]
    assert {d.permit for d in said} == {True, False}  # it names no output checkers
    assert all(d.rule and d.sentence for d in said)
    policy = consortium.site.policy(now)
    refusal = decide(policy, replace(signed.study, analyses=(Analysis("x", "fedavg"),)), today=now.date())
    assert (refusal.permit, refusal.rule, refusal.line) == (False, "methods", policy.line("methods"))


@pytest.mark.parametrize("change", ["minimum_persons: 3", "minimum_persons: few", "minimum_persons: {"])
def test_flip_1259_a_policy_from_elsewhere_permits_nothing(consortium: Any, now: datetime, change: str) -> None:
    signed = approved(consortium, now)
    said = opening(consortium, signed, now, meanwhile=lambda: consortium.rewrite("minimum_persons: 5", change))
    assert said.code == "PolicyRefuses"


def test_flip_75_each_approval_is_a_signed_statement(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    approvals.withdraw(consortium.site.path, signed.digest, consortium.custodian, reason="ethics", now=now)
    said = read_chain(consortium.site.state / "approvals" / signed.digest)
    assert [s.kind for s in said] == ["approval", "withdrawal"]
    assert {s.signers for s in said} == {(keys.public_of(consortium.custodian).hex(),)}
    assert opening(consortium, signed, now).rule == "approval_withdrawn"


def test_flip_1260_the_data_owner_is_a_role_of_its_own(consortium: Any, now: datetime) -> None:
    signed = consortium.signed()
    for private in (consortium.site.node_key(), consortium.lead, keys.new_key()):
        rule = rule_of(lambda p=private: approvals.approve(consortium.site.path, signed.study, signed.digest, p, now=now))
        assert rule in ("node_key_cannot_approve", "custodian_key_unlisted")


def test_flip_1150_the_movement_of_weights_is_permitted_before_it_starts(consortium: Any, now: datetime) -> None:
    """A site that permits statistics alone trains nothing, and says so before a round."""
    training = Analysis("net", "fedavg", formula="weight ~ age", options={"model": {"kind": "linear"}, "rounds": 2})
    signed = consortium.signed(analyses=(training,))
    denied = [f for f in foretold(consortium.site, signed.study, signed.digest, now) if not f.decision.permit]
    assert ("analysis net", "methods") in {(f.about, f.decision.rule) for f in denied}
    path, custodian = consortium.site.path, consortium.custodian
    assert rule_of(lambda: approvals.approve(path, signed.study, signed.digest, custodian, now=now)) == "methods"


def test_flip_857_the_cohort_is_frozen_for_the_run(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    first = prepare(consortium.site, signed.study, signed.digest, when=now)
    consortium.write_rows(skip=tuple(range(20)))
    again = open_prepared(consortium.site, signed.study, signed.digest)
    assert again.tags == first.tags
    assert np.array_equal(again.table["weight"], first.table["weight"], equal_nan=True)


def test_flip_1197_the_floor_counts_distinct_persons(consortium: Any, now: datetime) -> None:
    consortium.write_rows(*["P001,600,70000,1"] * 40, rows=4)  # 44 rows of 4 persons
    signed = approved(consortium, now)
    assert rule_of(lambda: prepare(consortium.site, signed.study, signed.digest, when=now)) == "minimum_persons"


def test_flip_519_suppressed_is_not_zero() -> None:
    out = screen({"cells": np.array([0, 3, 40])}, (Field("cells", "cell", 100.0, (3,)),), 5)["cells"]
    assert out[0] == 0
    assert np.isnan(out[1])


def test_flip_1219_refused_is_not_too_few() -> None:
    few, refused = TooFewPersons("3 persons", rule="minimum_persons"), PolicyRefuses("no", rule="methods")
    assert few.code != refused.code
    assert few.exit_code != refused.exit_code
    assert "3" not in "".join(few.public().values())


# ---- PHEMS_federated_node -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("own", [False, True], ids=["PHEMS#47", "PHEMS#182"])
def test_phems_review_before_results_leave_and_at_the_site(tmp_path: Path, own: bool) -> None:
    """Nothing is agreed before two checkers say so; a site's own checker has a word that binds."""
    private = {name: keys.new_key() for name in ("lead", "ada", "bo", "site")}
    public = {name: keys.public_of(k).hex() for name, k in private.items()}
    study = study_of(DESCRIBED)
    study = replace(
        study,
        lead=replace(study.lead, public_key=public["lead"]),
        outputs=Outputs(checkers=tuple(OutputChecker(n, "Bureau", public[n]) for n in ("ada", "bo"))),
    )
    mine = {"basel": [safe_outputs.Checker("site", "basel", public["site"], "basel")]} if own else {}
    checkers = safe_outputs.checkers_of(study, mine)
    made = propose(study, {"description": description((30, 12, 20, 40, 35, 25), 162)}, "as_is", objections=NONE)
    safe_outputs.ask(tmp_path, study, private["lead"], analyses=["description"], what="", purpose="a paper")

    def word(who: str, choice: str = "release", reason: str = "") -> None:
        safe_outputs.decide(
            tmp_path, study, checkers, [], private[who], request=1, choice=choice, form="as_is", reason=reason,
            proposal="ab" * 32, report=made.report,
        )  # fmt: skip

    def state() -> str:
        return safe_outputs.standing_of(tmp_path, study, checkers, 1).state

    before = state()
    assert rule_of(lambda: word("lead")) == "lead_cannot_check"
    word("ada")
    assert state() == before
    if own:
        word("site", "refuse", "too detailed for us")
        assert state() == "refused"
    else:
        word("bo")
        assert state() not in (before, "refused")


# ---- vantage6 -------------------------------------------------------------------------------------------------------
def test_vantage6_749_a_custodian_admits_single_analyses(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now, analyses=("means",))
    given = approvals.check_approval(consortium.site.path, signed.digest, now, study=signed.study)
    given.allow("means")
    with pytest.raises(NotApproved):
        given.allow("slope")


@site_step("requests.rows", leaves="reply")
def rows(table: Any) -> dict[str, Any]:
    return {"n": np.zeros(1)}


def test_vantage6_1592_single_functions_are_admitted_by_policy(consortium: Any, now: datetime) -> None:
    policy, question = consortium.site.policy(now), Gather(rows, (Field("n", "count", 10.0, (1,)),))
    refusal = decide(policy, consortium.study, question=question, today=now.date())
    assert (refusal.permit, refusal.rule) == (False, "steps")
    named = policy.model_copy(update={"steps": ("requests.rows/1",)})
    assert decide(named, consortium.study, question=question, today=now.date()).permit


def test_vantage6_1182_a_node_has_an_audit_log(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    opening(consortium, signed, now)
    told = log(consortium)
    assert [e.facts["study"] for e in told if e.event == "open"] == [signed.digest]
    path = consortium.site.state / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"event":"open"', b'"event":"idle"'))
    with pytest.raises(FivefoldError):
        verify(path)


# ---- ACRO -----------------------------------------------------------------------------------------------------------
def test_acro_299_survival_outputs() -> None:
    deaths = [(float(t), 1, 0) for t in range(7, 207, 2)]
    result, study = survived(deaths, 160), study_of(SURVIVAL)
    assert statuses(propose(study, {"survival": result}, "as_is", objections=NONE), "event-times") == {"fail"}
    made = propose(study, {"survival": result}, "rounded", objections=NONE)
    assert all(row[3] >= 5 for row in made.results["survival"].tables["curves"].rows if row[2] is not None)
