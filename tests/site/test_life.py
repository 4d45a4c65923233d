"""A study's life at one site: what a custodian says, in which order, and what the log and the table make of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run as call
from fivefold.errors import NotApproved, StatementInvalid
from fivefold.governance import approvals, statements
from fivefold.governance.answers import Wanted, read_counter
from fivefold.governance.proposals import propose, read_proposal
from fivefold.records.audit import entries
from fivefold.site import life
from fivefold.site.withdrawal import withdraw


def test_review_refusal_approval_withdrawal_close(consortium: Any) -> None:
    now = datetime.now(UTC)
    signed, site, key = consortium.signed(), consortium.site, consortium.custodian
    assert life.life_of(site, signed, now).state == "proposed"
    proposal = propose(signed, consortium.lead, why="a first version", now=now)
    life.reviewed(site, signed, proposal)
    life.reviewed(site, signed, proposal)  # once
    life.refuse(site, signed.digest, key, why="the ethics vote is missing", now=now)
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(site.path, signed.digest, now, study=signed.study)
    assert caught.value.rule == "study_refused"
    approvals.approve(site.path, signed.study, signed.digest, key, now=now)
    assert life.life_of(site, signed, now).state == "approved"
    with pytest.raises(NotApproved) as caught:
        life.refuse(site, signed.digest, key, why="too late: it is approved, and is withdrawn instead", now=now)
    assert caught.value.rule == "life_refuse"
    withdraw(site, signed.digest, key, reason="new board", now=now)
    assert life.end(site, signed.digest, why="over") is False  # no rows were frozen
    found = life.life_of(site, signed, now)
    assert found.state == "closed"
    assert [a.what for a in found.acts] == ["propose", "review", "refuse", "approve", "withdraw", "close"]
    assert found.acts[0].why == "a first version"
    assert all(a.who and a.at and a.key and a.study == signed.digest and a.proof for a in found.acts)
    with pytest.raises(NotApproved) as caught:
        approvals.approve(site.path, signed.study, signed.digest, key, now=now)
    assert caught.value.rule == "life_approve"


def test_days_pass_by_themselves(consortium: Any, now: datetime) -> None:
    signed, site = consortium.signed(), consortium.site
    last = (now + timedelta(days=3)).date()
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, expires=last, now=now)
    assert life.life_of(site, signed, now).state == "approved"
    late = now + timedelta(days=4)
    found = life.life_of(site, signed, late)
    assert (found.state, found.acts[-1].what, found.acts[-1].role) == ("expired", "expire", "clock")


def test_words_that_cannot_follow_close_the_study(consortium: Any, now: datetime) -> None:
    """Somebody with the custodian's key and the folder, but not the commands, writes an approval behind the end."""
    signed, site = consortium.signed(), consortium.site
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, now=now)
    chain = approvals.chain_of(site.path, signed.digest)
    facts = dict(statements.read_chain(chain)[0].facts)
    life.end(site, signed.digest, why="over")
    statements.write(chain, "approval", facts, consortium.custodian)
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(site.path, signed.digest, now, study=signed.study)
    assert caught.value.rule == "approval_altered"


def test_an_approval_of_another_key_is_told_and_does_not_count(consortium: Any, now: datetime) -> None:
    signed, site = consortium.signed(), consortium.site
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, now=now)
    chain = approvals.chain_of(site.path, signed.digest)
    facts = dict(statements.read_chain(chain)[0].facts)
    withdraw(site, signed.digest, consortium.custodian, reason="", now=now)
    statements.write(chain, "approval", facts, keys.new_key())
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(site.path, signed.digest, now, study=signed.study)
    assert caught.value.rule == "custodian_key_unlisted"
    found = life.life_of(site, signed, now)
    assert found.state == "withdrawn"
    assert [(a.what, rule) for a, rule in found.void] == [("approve", "life_key")]


def test_a_proposal_is_the_leads_own(consortium: Any, now: datetime) -> None:
    signed = consortium.signed()
    raw = propose(signed, consortium.lead, now=now)
    assert read_proposal(raw, signed.study, signed.digest).version == 1
    other = consortium.signed(title="Another")
    for study, digest, text in (
        (other.study, other.digest, raw), (signed.study, signed.digest, raw.replace(b"research", b"commerce"))
    ):  # fmt: skip
        with pytest.raises(StatementInvalid):
            read_proposal(text, study, digest)


def test_a_counter_proposal_is_signed_by_custodian_and_node(consortium: Any, now: datetime) -> None:
    signed, site = consortium.signed(), consortium.site
    wanted = Wanted(without_variables=("sex",), rounds=10)
    raw = life.counter(site, signed.study, signed.digest, consortium.custodian, wanted, why="fewer variables", now=now)
    said = read_counter(raw, signed.study, signed.digest)
    assert (said.site, said.wanted, said.why) == ("basel", wanted, "fewer variables")
    assert life.life_of(site, signed, now).state == "under review"
    for old, new in ((b"fewer", b"other"), (b'"sex"', b'"age"')):
        with pytest.raises(StatementInvalid):
            read_counter(raw.replace(old, new), signed.study, signed.digest)
    for wrong in (Wanted(("height",)), Wanted(), Wanted(noise=2.0)):
        with pytest.raises(NotApproved) as caught:
            life.counter(site, signed.study, signed.digest, consortium.custodian, wrong, why="x", now=now)
        assert caught.value.rule == "counter"


def test_by_the_command_line(consortium: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = consortium.signed()
    study, site = tmp_path / "s.signed.json", str(consortium.site.path)
    study.write_bytes(signed.to_bytes())
    (tmp_path / "s.proposal.json").write_bytes(propose(signed, consortium.lead))
    assert call(["site", "review", str(study), "--site", site]) == 0
    assert "under review" in capsys.readouterr().out
    assert call(["site", "refuse", str(study), "--site", site, "--why", ""]) == 31
    assert call(["site", "refuse", str(study), "--site", site, "--why", "no vote"]) == 0
    capsys.readouterr()
    assert call(["site", "life", str(study), "--site", site, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], [a["what"] for a in told["acts"]]) == ("refused", ["propose", "review", "refuse"])
    assert call(["study", "life", str(study), "--sites", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "basel  refused" in shown
    log = [e for e in entries(consortium.site.state / "audit.jsonl") if e.event in ("review", "refusal", "statement")]
    assert [e.event for e in log] == ["review", "refusal", "refusal", "statement"]
    assert log[1].facts["reason"] == ""  # the attempt without a reason was logged, and refused
