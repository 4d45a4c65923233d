"""A custodian's approval: who may give it, what it binds, what voids it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem, NotApproved, PolicyRefuses, StatementInvalid
from fivefold.governance import approvals, custody
from fivefold.governance.approvals import approve, check_approval, statements_of, withdraw
from fivefold.study.dictionary import Variable


def hexed(private: bytes) -> str:
    return keys.public_of(private).hex()


def refused(kind: type[FivefoldError], call: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **more)
    assert caught.value.message
    assert caught.value.hint
    return caught.value.rule


def test_no_approval_is_a_refusal(consortium: Any, now: datetime) -> None:
    signed = consortium.signed()
    assert refused(NotApproved, check_approval, consortium.site.path, signed.digest, now, study=signed.study) == "no_approval"


def test_an_approval_binds_study_dictionary_policy_and_analyses(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    given = approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    found = check_approval(folder, signed.digest, now, study=signed.study)
    assert found == given
    assert found.analyses == ("means", "slope")
    assert (found.site_totals, found.event_totals) == ("refused", "refused")
    assert found.expires == date(2027, 6, 30)
    assert found.policy_version == 1
    found.allow("means")

    other = replace(signed.study, title="Another")
    assert refused(NotApproved, check_approval, folder, "0" * 64, now, study=other) == "no_approval"
    variables = dict(signed.study.dictionary.variables) | {"age": Variable("age", "Age", "number", "year", 0, 121)}
    changed = replace(signed.study, dictionary=replace(signed.study.dictionary, variables=variables))
    assert refused(NotApproved, check_approval, folder, signed.digest, now, study=changed) == "approval_dictionary_changed"


def test_an_approval_for_one_study_is_no_approval_for_another(consortium: Any, now: datetime) -> None:
    signed, other, folder = consortium.signed(), consortium.signed(title="Other"), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    chain = folder / "state" / "approvals"
    (chain / signed.digest).rename(chain / other.digest)
    assert refused(NotApproved, check_approval, folder, other.digest, now, study=other.study) == "approval_altered"


def test_only_some_analyses(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    given = approve(folder, signed.study, signed.digest, consortium.custodian, analyses=("means",), now=now)
    given.allow("means")
    assert refused(NotApproved, given.allow, "slope") == "analysis_not_approved"
    rule = refused(NotApproved, approve, folder, signed.study, signed.digest, consortium.custodian, analyses=("x",), now=now)
    assert rule == "analysis_not_approved"


def test_the_nodes_key_cannot_approve(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    rule = refused(KeyProblem, approve, folder, signed.study, signed.digest, consortium.site.node_key(), now=now)
    assert rule == "node_key_cannot_approve"
    rule = refused(KeyProblem, approve, folder, signed.study, signed.digest, keys.new_key(), now=now)
    assert rule == "custodian_key_unlisted"


def test_the_policy_cannot_list_the_nodes_key_as_a_custodians(consortium: Any, now: datetime) -> None:
    consortium.rewrite("version: 1", "version: 2")
    consortium.rewrite(hexed(consortium.custodian), custody.node_key(consortium.site.path))
    assert refused(PolicyRefuses, custody.sign_policy, consortium.site.path, consortium.custodian, now=now) == "custodians"


@pytest.mark.parametrize("part", ["facts", "key", "signature", "kind"])
def test_an_altered_approval_is_void(consortium: Any, now: datetime, part: str) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    path = next((folder / "state" / "approvals" / signed.digest).glob("*.json"))
    value = json.loads(path.read_text())
    if part == "facts":
        value["facts"]["event_totals"] = "permitted"
    elif part == "kind":
        value["kind"] = "policy"
    else:
        text = value["signatures"][0][part]
        value["signatures"][0][part] = ("0" if text[0] != "0" else "1") + text[1:]
    path.write_text(json.dumps(value))
    assert refused(NotApproved, check_approval, folder, signed.digest, now, study=signed.study) == "approval_altered"


def test_a_forged_approval_by_the_node_is_refused(consortium: Any, now: datetime) -> None:
    """A node that is taken over writes an approval with the key it has: its signature is right, and it does not count."""
    from fivefold.governance import statements

    signed, folder = consortium.signed(), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    chain = folder / "state" / "approvals" / signed.digest
    facts = dict(statements.read_chain(chain)[-1].facts)
    statements.write(chain, "approval", facts, consortium.site.node_key())
    assert refused(NotApproved, check_approval, folder, signed.digest, now, study=signed.study) == "node_key_cannot_approve"


def test_a_new_version_of_the_policy_voids(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    consortium.rewrite("version: 1", "version: 2")
    assert refused(PolicyRefuses, check_approval, folder, signed.digest, now) == "signature"
    custody.sign_policy(folder, consortium.custodian, now=now)
    assert refused(NotApproved, check_approval, folder, signed.digest, now) == "approval_policy_changed"
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    assert check_approval(folder, signed.digest, now).policy_version == 2


def test_withdrawal_stops_at_once_and_a_new_approval_is_possible(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    assert refused(NotApproved, withdraw, folder, signed.digest, consortium.custodian, now=now) == "no_approval"
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    assert (
        refused(KeyProblem, withdraw, folder, signed.digest, consortium.site.node_key(), now=now) == "node_key_cannot_approve"
    )
    withdraw(folder, signed.digest, consortium.custodian, reason="ethics", now=now)
    assert refused(NotApproved, check_approval, folder, signed.digest, now) == "approval_withdrawn"
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    check_approval(folder, signed.digest, now)
    first = folder / "state" / "approvals" / signed.digest / "0002-withdrawal.json"
    first.unlink()
    assert refused(NotApproved, check_approval, folder, signed.digest, now) == "approval_altered"


def test_days_end(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, expires=date(2026, 12, 1), now=now)
    check_approval(folder, signed.digest, datetime.fromisoformat("2026-12-01T23:00:00+00:00"))
    rule = refused(NotApproved, check_approval, folder, signed.digest, datetime.fromisoformat("2026-12-02T00:00:00+00:00"))
    assert rule == "approval_expired"
    late = now + timedelta(days=800)
    assert refused(PolicyRefuses, check_approval, folder, signed.digest, late) == "custodian_key_expired"


def test_choices_are_never_wider_than_the_policy(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    arguments = (folder, signed.study, signed.digest, consortium.custodian)
    assert refused(NotApproved, approve, *arguments, event_totals="permitted", now=now) == "event_totals"
    consortium.rewrite('event_totals: "refused"', 'event_totals: "permitted"')
    consortium.rewrite("version: 1", "version: 2")
    custody.sign_policy(folder, consortium.custodian, now=now)
    assert approve(*arguments, now=now).event_totals == "permitted"
    assert approve(*arguments, event_totals="refused", now=now).permits("event_totals") is False


def test_a_study_that_gives_the_site_another_key(consortium: Any, now: datetime) -> None:
    sites = tuple(replace(s, public_key=hexed(keys.new_key())) if s.name == "basel" else s for s in consortium.study.sites)
    signed = consortium.signed(sites=sites)
    assert (
        refused(NotApproved, approve, consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
        == "own_key"
    )


def test_rotation_keeps_what_it_names_and_nothing_dated_back(consortium: Any, now: datetime) -> None:
    signed, other, folder = consortium.signed(), consortium.signed(title="Other"), consortium.site.path
    old, new = consortium.custodian, keys.new_key()
    approve(folder, signed.study, signed.digest, old, now=now)
    custody.rotate_custodian(folder, old, new, until=date(2028, 1, 1), keeps=statements_of(folder, hexed(old)), now=now)
    check_approval(folder, signed.digest, now)
    assert refused(KeyProblem, approve, folder, other.study, other.digest, old, now=now) == "custodian_key_replaced"
    # somebody finds the old key and dates an approval back: the statement is not among those that the rotation kept
    from fivefold.governance import statements

    facts = dict(statements.read_chain(folder / "state" / "approvals" / signed.digest)[0].facts)
    statements.write(folder / "state" / "approvals" / other.digest, "approval", facts | {"study": other.digest}, old)
    assert refused(NotApproved, check_approval, folder, other.digest, now) == "custodian_key_replaced"
    assert approve(folder, other.study, other.digest, new, now=now).key == hexed(new)
    rule = refused(KeyProblem, custody.rotate_custodian, folder, new, old, until=date(2028, 1, 1), now=now)
    assert rule == "key_in_use"


def test_a_revoked_key_voids_its_approvals_and_its_policy(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    old, new = consortium.custodian, keys.new_key()
    approve(folder, signed.study, signed.digest, old, now=now)
    custody.rotate_custodian(folder, old, new, until=date(2028, 1, 1), keeps=statements_of(folder, hexed(old)), now=now)
    with pytest.raises(KeyProblem):
        custody.revoke_key(folder, hexed(old), consortium.site.node_key(), reason="lost", now=now)
    custody.revoke_key(folder, hexed(old), new, reason="lost", now=now)
    assert refused(PolicyRefuses, check_approval, folder, signed.digest, now) == "custodian_key_revoked"
    consortium.rewrite("version: 1", "version: 2")
    consortium.rewrite(hexed(old), hexed(new))
    assert refused(KeyProblem, custody.sign_policy, folder, old, now=now) == "custodian_key_revoked"
    custody.sign_policy(folder, new, now=now)
    assert refused(NotApproved, check_approval, folder, signed.digest, now) == "custodian_key_revoked"
    approve(folder, signed.study, signed.digest, new, now=now)
    check_approval(folder, signed.digest, now)


def test_a_new_policy_cannot_bring_its_own_signer(consortium: Any, now: datetime) -> None:
    stranger = keys.new_key()
    consortium.rewrite("version: 1", "version: 2")
    consortium.rewrite(hexed(consortium.custodian), hexed(stranger))
    assert refused(KeyProblem, custody.sign_policy, consortium.site.path, stranger, now=now) == "custodian_key_unlisted"


def test_versions_go_up_by_one(consortium: Any, now: datetime) -> None:
    folder = consortium.site.path
    assert refused(PolicyRefuses, custody.sign_policy, folder, consortium.custodian, now=now) == "version"
    consortium.rewrite("minimum_persons: 5", "minimum_persons: 6")
    assert refused(PolicyRefuses, custody.sign_policy, folder, consortium.custodian, now=now) == "version"
    consortium.rewrite("version: 1", "version: 3")
    assert refused(PolicyRefuses, custody.sign_policy, folder, consortium.custodian, now=now) == "version"


def test_a_statement_taken_away_is_noticed(consortium: Any, now: datetime) -> None:
    folder, old, new = consortium.site.path, consortium.custodian, keys.new_key()
    custody.rotate_custodian(folder, old, new, until=date(2028, 1, 1), now=now)
    custody.revoke_key(folder, hexed(old), new, reason="lost", now=now)
    consortium.rewrite("version: 1", "version: 2")
    custody.sign_policy(folder, new, now=now)
    chain: Path = folder / "state" / "keys"
    (chain / "0002-revoke.json").unlink()
    assert refused(PolicyRefuses, custody.custody_of, folder, now.date()) == "signature"
    (chain / "0001-rotate.json").rename(chain / "0003-rotate.json")
    (chain / "0003-rotate.json").write_text("{}")
    assert refused(StatementInvalid, custody.custody_of, folder, now.date()) == ""


def test_the_nodes_key_rotates_by_a_statement_of_three(consortium: Any, now: datetime) -> None:
    from fivefold.records.audit import verify
    from fivefold.site.folder import rotate_node_key

    site = consortium.site
    before = custody.node_key(site.path)
    public = rotate_node_key(site, consortium.custodian)
    assert public != before
    assert custody.node_key(site.path) == public == hexed(site.node_key())
    statement = custody.read_chain(site.path / "state" / "keys")[-1]
    assert set(statement.signers) == {before, public, hexed(consortium.custodian)}
    with site.audit() as log:
        log.write("still written")
    report = verify(site.path / "state" / "audit.jsonl")
    assert public in report.keys


def test_a_revoked_node_answers_nothing(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    custody.revoke_key(folder, custody.node_key(folder), consortium.custodian, reason="stolen", now=now)
    assert refused(NotApproved, check_approval, folder, signed.digest, now) == "node_key_revoked"


def test_listing(consortium: Any, now: datetime) -> None:
    signed, folder = consortium.signed(), consortium.site.path
    assert approvals.approvals(folder) == {}
    given = approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
    assert list(approvals.approvals(folder)) == [signed.digest]
    assert statements_of(folder, given.key) == (given.identity,)
    assert approvals.decision(folder, signed.study, now).permit
