"""The Safes at a real site folder: register of people, reviews, settings, data; each lapse and lie refused by its rule."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from ruamel.yaml import YAML

from fivefold.errors import NotApproved, PolicyRefuses
from fivefold.governance import safe_data, safe_settings
from fivefold.governance.custody import sign_policy
from fivefold.governance.safe_settings import SURROUNDINGS, code_digest
from fivefold.site.preparation import prepare
from fivefold.study.definition import Agreements
from tests.site.cast import PEOPLE, Cast, refused, written


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
