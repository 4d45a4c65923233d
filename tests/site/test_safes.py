"""The Safes at a real site folder: register of people, reviews, settings, data; each lapse and lie refused by its rule."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from ruamel.yaml import YAML

from fivefold.auth import keys
from fivefold.errors import FivefoldError, NotApproved, PolicyRefuses, StatementInvalid
from fivefold.governance import register, safe_data, safe_people, safe_projects, safe_settings
from fivefold.governance.approvals import approve, check_approval
from fivefold.governance.custody import sign_policy
from fivefold.governance.safe_settings import SURROUNDINGS, code_digest
from fivefold.site.admission import admitted
from fivefold.site.preparation import prepare
from fivefold.study.definition import Agreements, OutputChecker, Outputs
from fivefold.study.digest import SignedStudy

SOON, LATE = date(2026, 12, 31), date(2027, 11, 1)
PEOPLE = """
people:
  required: [lead, checker]
  training:
    - {course: data-protection, roles: [lead, checker]}
    - {course: disclosure-control, roles: [checker]}
  terms: "2026"
"""


def written(text: str, block: str) -> str:
    """A policy with one of its empty keys filled in."""
    key = block.strip().partition(":")[0]
    assert not key or f"\n{key}: null\n" in text
    return text.replace(f"\n{key}: null\n", f"\n{block.strip()}\n")


class Cast:
    """A lead, two checkers and a reviewer with keys of their own, at a site whose policy has one more block."""

    def __init__(self, consortium: Any, block: str, now: datetime) -> None:
        self.site, self.custodian, self.now = consortium.site, consortium.custodian, now
        self.keys = {name: keys.new_key() for name in ("Ada Check", "Bo Check", "Rita Review", "Rolf Review")} | {
            "Ada Lead": consortium.lead
        }
        checkers = tuple(OutputChecker(n, "Bureau", self.public(n)) for n in ("Ada Check", "Bo Check"))
        self.signed: SignedStudy = consortium.signed(outputs=Outputs(checkers=checkers))
        path = self.site.path / "site.yaml"
        path.write_text(written(path.read_text().replace("version: 1\n", "version: 2\n"), block))
        sign_policy(self.site.path, self.custodian, now=now)

    def public(self, name: str) -> str:
        return keys.public_of(self.keys[name]).hex()

    def grant(
        self, name: str, *roles: Any, by: bytes | None = None, until: date = LATE, organisation: str = "Bureau", **more: Any
    ) -> None:
        register.grant(
            self.site.path, self.site.custody(self.now), by or self.custodian, name=name, organisation=organisation,
            key=self.public(name), roles=roles, until=until, now=self.now, **more,
        )  # fmt: skip

    def train(self, name: str, course: str, *, until: date = LATE, by: bytes | None = None) -> None:
        custody = self.site.custody(self.now)
        register.train(
            self.site.path, custody, by or self.custodian, key=self.public(name), course=course, until=until, now=self.now
        )

    def accept(self, name: str, *, until: date = LATE, by: bytes | None = None) -> None:
        custody = self.site.custody(self.now)
        register.accept(
            self.site.path, custody, by or self.keys[name], key=self.public(name), terms="2026", until=until, now=self.now
        )

    def approve(self) -> None:
        approve(self.site.path, self.signed.study, self.signed.digest, self.custodian, now=self.now)

    def admit(self, engine: str = "local", when: datetime | None = None) -> None:
        admitted(self.site, self.signed, self.site.node_key(), (), when or self.now, SURROUNDINGS[engine])

    def review(self, name: str, **more: Any) -> None:
        custody = self.site.custody(self.now)
        safe_projects.review(
            self.site.path, custody, self.signed.study, self.signed.digest, self.keys[name], now=self.now, **more
        )


def refused(rule: str, act: Any, *words: Any, **more: Any) -> str:
    with pytest.raises(FivefoldError) as found:
        act(*words, **more)
    assert found.value.rule == rule, found.value.message
    return found.value.message


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


# ---- safe people ----------------------------------------------------------------------------------------------------
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


# ---- safe projects --------------------------------------------------------------------------------------------------
@pytest.fixture
def projects(consortium: Any, now: datetime) -> Cast:
    it = Cast(consortium, "\nprojects: {reviewers: 2, organisations: 2}\n", now)
    it.grant("Rita Review", "reviewer", organisation="Ethics board")
    it.grant("Rolf Review", "reviewer", organisation="Bureau")
    return it


def test_an_approval_counts_only_with_enough_reviews(projects: Cast) -> None:
    refused("projects.reviewers", projects.approve)
    projects.review("Rita Review")
    assert "1 of 2" in refused("projects.reviewers", projects.approve)
    projects.review("Rolf Review")
    projects.approve()
    projects.admit()
    projects.review("Rolf Review", verdict="objects", reason="new evidence of harm")
    assert "new evidence of harm" in refused("projects.reviewers", projects.admit)


def test_reviewers_of_one_house_are_not_enough(projects: Cast) -> None:
    projects.grant("Ada Check", "reviewer", organisation="bureau")
    for name in ("Rolf Review", "Ada Check"):
        projects.review(name)
    assert "from 1 organisations (2 are needed)" in refused("projects.reviewers", projects.approve)


def test_nobody_reviews_their_own_study(projects: Cast) -> None:
    projects.grant("Ada Lead", "reviewer", organisation="University")
    refused("own_study", projects.review, "Ada Lead")
    refused("projects.reviewers", projects.review, "Bo Check")
    refused("reason_missing", projects.review, "Rita Review", verdict="objects")


def test_a_review_is_of_one_study_alone(projects: Cast, consortium: Any) -> None:
    for name in ("Rita Review", "Rolf Review"):
        projects.review(name)
    other = replace(projects.signed.study, title="Another")
    projects.signed = consortium.signed(**{f: getattr(other, f) for f in ("title", "outputs")})
    refused("projects.reviewers", projects.approve)


def test_benefit_end_and_agreement_are_conditions(consortium: Any, now: datetime) -> None:
    it = Cast(consortium, "\nprojects: {public_benefit: true, max_days: 300, data_sharing: dsa.pdf}\n", now)
    signed_text = b"the agreement"
    digest = hashlib.sha256(signed_text).hexdigest()

    def asked(**agreed: Any) -> None:
        it.signed = consortium.signed(outputs=it.signed.study.outputs, agreements=Agreements(**agreed))

    base = {"ethics": "EK 1", "purpose": "research", "expires": "2027-06-30"}
    refused("projects.public_benefit", it.approve)
    asked(**base, public_benefit="better care")
    assert "names no data-sharing agreement" in refused("projects.data_sharing", it.approve)
    asked(**base, public_benefit="better care", data_sharing=digest)
    assert "is not at this site" in refused("projects.data_sharing", it.approve)
    (it.site.path / "dsa.pdf").write_bytes(b"another")
    refused("projects.data_sharing", it.approve)
    (it.site.path / "dsa.pdf").write_bytes(signed_text)
    it.approve()
    it.admit()
    asked(**base | {"expires": "2027-11-01"}, public_benefit="better care", data_sharing=digest)
    refused("projects.max_days", it.approve)


def test_a_study_without_what_came_later_keeps_its_digest(consortium: Any) -> None:
    """`public_benefit` and `data_sharing` are left out where they say nothing."""
    from fivefold.study.document import document

    assert set(document(consortium.study)["agreements"]) == {"ethics", "purpose", "expires"}
    more = replace(consortium.study, agreements=Agreements("E", "P", "2027-06-30", public_benefit="care"))
    assert document(more)["agreements"]["public_benefit"] == "care"


# ---- safe settings --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "rule", "engine"),
    [
        ("settings: {engines: [flower]}", "settings.engines", "local"),
        ("settings: {no_network: true}", "settings.no_network", "local"),
        ("settings: {encryption: true}", "settings.encryption", "flare"),
        ("settings: {releases: [0.0.1]}", "settings.releases", "local"),
        (f"settings: {{code: [{'ab' * 32}]}}", "settings.code", "local"),
    ],
)
def test_settings_that_the_site_does_not_admit(consortium: Any, now: datetime, block: str, rule: str, engine: str) -> None:
    it = Cast(consortium, f"\n{block}\n", now)

    def whole() -> None:
        it.approve()
        it.admit(engine)

    refused(rule, whole)


def test_settings_that_the_site_admits(consortium: Any, now: datetime) -> None:
    import fivefold

    code = code_digest(consortium.study)
    block = f'engines: [flower], no_network: true, encryption: true, releases: ["{fivefold.__version__}"], code: [{code}]'
    it = Cast(consortium, f"\nsettings: {{{block}}}\n", now)
    it.approve()
    it.admit("flower")
    said = safe_settings.judge(it.site.policy(now), it.signed.study, SURROUNDINGS["flower"])
    assert {"settings.engines", "settings.no_network", "settings.encryption", "settings.releases"} <= {d.rule for d in said}
    assert all(d.permit for d in said)


# ---- safe data ------------------------------------------------------------------------------------------------------
def test_rows_in_a_poor_state_are_not_frozen(consortium: Any, now: datetime) -> None:
    it = Cast(consortium, "\ndata: {unreadable: 5}\n", now)
    it.approve()
    consortium.write_rows(*(f"X{i},400,heavy,1" for i in range(4)))
    words = refused("data.unreadable", prepare, it.site, it.signed.study, it.signed.digest, when=now)
    assert "(weight)" in words
    assert not list((it.site.state / "snapshots").glob("*.snapshot"))
    consortium.write_rows("X1,400,heavy,1")
    prepare(it.site, it.signed.study, it.signed.digest, when=now)


def test_missing_cells_are_a_condition_too(consortium: Any, now: datetime) -> None:
    it = Cast(consortium, "\ndata: {missing: 5}\n", now)
    it.approve()
    consortium.write_rows(*(f"X{i},400,50000,9" for i in range(5)))
    assert "(sex)" in refused("data.missing", prepare, it.site, it.signed.study, it.signed.digest, when=now)


def test_the_statement_of_deidentification_is_the_one_that_was_signed_for(consortium: Any, now: datetime) -> None:
    text = b"no names, no dates of birth"
    digest = hashlib.sha256(text).hexdigest()
    it = Cast(consortium, f"\ndata: {{deidentification: {{file: deid.txt, sha256: {digest}}}}}\n", now)
    refused("data.deidentification", it.approve)
    (it.site.path / "deid.txt").write_bytes(text)
    it.approve()
    (it.site.path / "deid.txt").write_bytes(text + b" nor anything")
    refused("data.deidentification", it.admit)


def test_minimisation_is_shown_with_its_evidence(consortium: Any, now: datetime) -> None:
    it = Cast(consortium, "", now)
    it.approve()
    consortium.write_rows("X1,12,9000,1", "X2,24,12000,2")  # children: outside the cohort
    frozen = prepare(it.site, it.signed.study, it.signed.digest, when=now)
    said = safe_data.judge(it.site.policy(now), it.signed.study, folder=it.site.path, report=frozen.report)
    assert all(d.permit for d in said)
    assert "2 rows outside the cohort left out" in said[-1].evidence
    more = dict(frozen.report) | {"variables": [*frozen.report["variables"], {"name": "postcode"}]}
    wrong = safe_data.judge(it.site.policy(now), it.signed.study, folder=it.site.path, report=more)
    assert "postcode" in next(d.sentence for d in wrong if not d.permit)


def test_a_policy_that_contradicts_itself_permits_nothing(consortium: Any, now: datetime) -> None:
    path = consortium.site.path / "site.yaml"
    for block in (
        "projects: {reviewers: 1, organisations: 2}",
        "people: {required: [lead], training: [{course: c, roles: [checker]}]}",
        "data: {unreadable: 101}",
        "settings: {code: [abc]}",
        "people: {requird: [lead]}",
    ):
        whole = written(path.read_text(), block)
        assert isinstance(YAML(typ="safe").load(whole), dict)
        before = path.read_text()
        path.write_text(whole.replace("version: 1\n", "version: 2\n"))
        with pytest.raises(PolicyRefuses, match="line"):
            sign_policy(consortium.site.path, consortium.custodian, now=now)
        path.write_text(before)


def test_an_approval_from_before_does_not_outlive_the_condition(consortium: Any, now: datetime) -> None:
    """A new condition is a new version of the policy, so what was approved before has to be approved again."""
    it = Cast(consortium, "", now)
    it.approve()
    path = it.site.path / "site.yaml"
    path.write_text(written(path.read_text().replace("version: 2\n", "version: 3\n"), PEOPLE))
    sign_policy(it.site.path, it.custodian, now=now + timedelta(hours=1))
    with pytest.raises(NotApproved) as found:
        it.admit()
    assert found.value.rule == "approval_policy_changed"
    refused("people.required", it.approve)
