"""Safe people: roles, trainings and terms; who may grant, certify, approve and check, and who may not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.errors import StatementInvalid
from fivefold.governance import register, safe_people
from fivefold.governance.approvals import check_approval
from fivefold.site.preparation import prepare
from fivefold.study.definition import OutputChecker, Outputs
from tests.site.cast import LATE, PEOPLE, SOON, Cast, refused


@pytest.fixture
def people(consortium: Any, now: datetime) -> Cast:
    it = Cast(consortium, PEOPLE, now)
    it.grant("Ada Lead", "lead")
    for name in ("Ada Check", "Bo Check"):
        it.grant(name, "checker")
        it.train(name, "disclosure-control")
    for name in ("Ada Lead", "Ada Check", "Bo Check"):
        it.train(name, "data-protection", until=SOON if name == "Bo Check" else LATE)
        it.accept(name)
    return it


def test_people_in_good_standing_are_admitted_and_each_decision_has_its_line(people: Cast) -> None:
    people.approve()
    people.admit()
    found = register.register_of(people.site.path, people.site.custody(people.now), people.now.date())
    policy = people.site.policy(people.now)
    said = safe_people.judge(policy, people.signed.study, found, people.now.date())
    assert all(d.permit for d in said)
    text = (people.site.path / "site.yaml").read_text().splitlines()
    training = [d for d in said if d.rule == "people.training"]
    assert len(training) == 5
    assert all(text[d.line - 1].strip() == "training:" and d.evidence for d in training)


def test_a_training_that_lapses_stops_at_the_next_question(people: Cast) -> None:
    people.approve()

    def check(day: datetime) -> None:
        check_approval(people.site.path, people.signed.digest, day, study=people.signed.study)

    check(datetime(2026, 12, 31, 12, tzinfo=UTC))
    words = refused("people.training", check, datetime(2027, 1, 1, 12, tzinfo=UTC))
    assert "data-protection of Bo Check lapsed on 2026-12-31" in words
    people.train("Bo Check", "data-protection")  # renewed
    check(datetime(2027, 1, 1, 12, tzinfo=UTC))


def test_a_checker_whose_training_lapsed_lets_nothing_go(people: Cast) -> None:
    """The site is asked before each release; where it refuses to answer, that counts as an objection."""
    from fivefold.site.release_ledger import Proposed, verdict

    people.approve()
    prepare(people.site, people.signed.study, people.signed.digest, when=people.now)
    assert verdict(people.site, people.signed, Proposed({}, "all"), now=people.now) == ()
    later = datetime(2027, 1, 1, 12, tzinfo=UTC)
    refused("people.training", verdict, people.site, people.signed, Proposed({}, "all"), now=later)


@pytest.mark.parametrize("missing", ["people.required", "people.training", "people.terms"])
def test_whoever_lacks_one_thing_is_refused_by_its_rule(consortium: Any, now: datetime, missing: str) -> None:
    block = 'people: {required: [lead], training: [{course: data-protection, roles: [lead]}], terms: "2026"}'
    it = Cast(consortium, f"\n{block}\n", now)
    for rule, step in (
        ("people.required", lambda: it.grant("Ada Lead", "lead")),
        ("people.training", lambda: it.train("Ada Lead", "data-protection")),
        ("people.terms", lambda: it.accept("Ada Lead")),
    ):
        if rule == missing:
            refused(rule, it.approve)
            return
        step()


def test_nobody_grants_more_than_they_hold(people: Cast) -> None:
    refused("grant", people.grant, "Rita Review", "reviewer", by=people.keys["Ada Check"])
    people.grant("Rita Review", "auditor", may_grant=("reviewer",), until=SOON)
    rita = people.keys["Rita Review"]
    refused("grant", people.grant, "Rolf Review", "operator", by=rita)
    refused("grant", people.grant, "Rolf Review", "reviewer", by=rita, until=LATE)
    refused("grant", people.grant, "Rolf Review", "reviewer", by=rita, until=SOON, may_grant=("checker",))
    refused("grant", people.grant, "Rolf Review", "custodian")
    people.grant("Rolf Review", "reviewer", by=rita, until=SOON)
    refused("grant", people.grant, "Rolf Review", "reviewer", until=date(2030, 1, 1))  # beyond the custodian's own last day


def test_whoever_is_dismissed_takes_along_what_they_granted(people: Cast) -> None:
    people.grant("Rita Review", "auditor", may_grant=("reviewer",))
    people.grant("Rolf Review", "reviewer", by=people.keys["Rita Review"])

    def read() -> Any:
        return register.register_of(people.site.path, people.site.custody(people.now), people.now.date()).people

    assert people.public("Rolf Review") in read()
    register.dismiss(
        people.site.path, people.site.custody(people.now), people.custodian,
        key=people.public("Rita Review"), reason="left", now=people.now,
    )  # fmt: skip
    assert people.public("Rita Review") not in read()
    refused("grant", people.grant, "Rolf Review", "reviewer", by=people.keys["Rita Review"])
    refused("grant", people.grant, "Rita Review", "auditor")


def test_nobody_certifies_their_own_training(people: Cast) -> None:
    people.grant("Rita Review", "auditor", may_grant=("auditor",))
    refused("own_training", people.train, "Rita Review", "data-protection", by=people.keys["Rita Review"])
    refused("grant", people.train, "Rita Review", "data-protection", by=people.keys["Ada Check"])
    refused("grant", people.accept, "Rita Review", by=people.keys["Ada Check"])


def test_duties_are_apart(people: Cast) -> None:
    refused("separation_of_duties", people.grant, "Ada Lead", "checker")
    refused("separation_of_duties", people.grant, "Bo Check", "operator")
    policy = people.site.policy(people.now)
    study = people.signed.study
    found = register.register_of(people.site.path, people.site.custody(people.now), people.now.date())
    own = replace(study, outputs=Outputs(checkers=(OutputChecker("Somebody Else", "", study.lead.public_key),)))
    node = replace(study, outputs=Outputs(checkers=(OutputChecker("Night Shift", "", study.sites[0].public_key),)))
    same = replace(study, outputs=Outputs(checkers=(OutputChecker("ADA LEAD", "", people.public("Bo Check")),)))
    for wrong in (own, node, same):
        first = safe_people.judge(policy, wrong, found, people.now.date())[0]
        assert (first.permit, first.rule) == (False, "separation_of_duties")


def test_a_register_that_was_altered_admits_nobody(people: Cast) -> None:
    people.approve()
    path = sorted((people.site.state / "people").iterdir())[1]
    path.write_bytes(path.read_bytes().replace(b"Ada Check", b"Eve Check"))
    with pytest.raises(StatementInvalid):
        people.admit()
    path.unlink()
    with pytest.raises(StatementInvalid):
        people.admit()


def test_a_forged_grant_changes_nothing(people: Cast) -> None:
    """Somebody with the disk but no custodian's key appends a grant that is signed, though by nobody who may."""
    from fivefold.governance.statements import write

    thief = keys.new_key()
    facts = {
        "person": "Eve", "organisation": "", "key": keys.public_of(thief).hex(), "roles": ["checker"],
        "until": "2027-01-01", "may_grant": ["checker"], "site": "basel", "at": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    write(people.site.state / "people", "grant", facts, thief)
    found = register.register_of(people.site.path, people.site.custody(people.now), people.now.date())
    assert keys.public_of(thief).hex() not in found.people
