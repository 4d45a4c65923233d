"""The last statements of a chain cannot be cut off, put back or exchanged: the site's own log names where each chain ends."""

from __future__ import annotations

import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.errors import FivefoldError, NotApproved, StatementInvalid
from fivefold.governance import approvals, register
from fivefold.records.audit import entries, verify
from fivefold.site import chain_heads
from fivefold.site.folder import SiteFolder
from fivefold.site.withdrawal import withdraw


def approved(consortium: Any, now: datetime) -> Any:
    signed, site = consortium.signed(), consortium.site
    with site.act("approval", study=signed.digest):
        approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, now=now)
    return signed


def rule(site: SiteFolder, signed: Any, now: datetime) -> str:
    """Which rule the site's approval fails by."""
    with pytest.raises(FivefoldError) as caught:
        site.approval(signed.digest, now, study=signed.study)
    return caught.value.rule


def test_a_withdrawal_that_is_cut_off_does_not_bring_the_approval_back(consortium: Any, now: datetime, tmp_path: Path) -> None:
    site, signed = consortium.site, approved(consortium, now)
    site.approval(signed.digest, now, study=signed.study)
    withdraw(site, signed.digest, consortium.custodian, reason="ethics", now=now)
    last = approvals.chain_of(site.path, signed.digest) / "0002-withdrawal.json"
    shutil.move(last, tmp_path / "kept")
    assert rule(site, signed, now) == "statement_cut_off"
    with pytest.raises(StatementInvalid, match="2 statements, and 1 are there"), site.act("evidence"):
        pytest.fail("nothing is done at a site whose statements are not whole")
    log = list(entries(site.state / "audit.jsonl"))
    assert (log[-1].event, log[-1].facts["rule"]) == ("evidence refused", "statement_cut_off")
    # something else in its place is not it, be it signed by the custodian
    last.write_bytes((last.parent / "0001-approval.json").read_bytes())
    assert rule(site, signed, now) == "statement_cut_off"
    shutil.copy(tmp_path / "kept", last)
    with pytest.raises(NotApproved) as caught:  # the back-up heals it, and says what was said
        site.approval(signed.digest, now, study=signed.study)
    assert caught.value.rule == "approval_withdrawn"
    verify(site.state / "audit.jsonl")


def test_a_dismissal_that_is_cut_off_stops_the_site(consortium: Any, now: datetime) -> None:
    site, signed = consortium.site, approved(consortium, now)
    someone = keys.public_of(keys.new_key()).hex()
    with site.act("role granted", person="Bo"):
        register.grant(
            site.path, site.custody(now), consortium.custodian, name="Bo", organisation="basel", key=someone,
            roles=("operator",), until=date(2027, 1, 1), now=now,
        )  # fmt: skip
    with site.act("roles revoked", key=someone):
        register.dismiss(site.path, site.custody(now), consortium.custodian, key=someone, reason="left", now=now)
    site.approval(signed.digest, now, study=signed.study)
    (site.state / "people" / "0002-dismissal.json").unlink()
    assert rule(site, signed, now) == "statement_cut_off"
    shutil.rmtree(site.state / "people")
    assert rule(site, signed, now) == "statement_cut_off"


def test_an_end_is_noted_once_and_a_statement_that_a_crash_left_behind_later(consortium: Any, now: datetime) -> None:
    site = consortium.site
    signed = consortium.signed()
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, now=now)  # and the process dies
    chain = f"approvals/{signed.digest}"
    assert chain not in chain_heads.witnessed(site.state / "audit.jsonl")
    site.approval(signed.digest, now, study=signed.study)
    for _ in range(2):
        with site.act("doctor"):
            pass
    noted = [e.facts for e in entries(site.state / "audit.jsonl") if e.event == "chain"]
    assert [(f["chain"], f["statements"]) for f in noted] == [("policy", 1), (chain, 1)]


def test_another_process_reads_the_same_ends(consortium: Any, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    site, log = consortium.site, consortium.site.state / "audit.jsonl"
    step_by_step = [chain_heads.witnessed(log)]
    approved(consortium, now)
    step_by_step.append(chain_heads.witnessed(log))
    monkeypatch.setattr(chain_heads, "_READ", {})
    assert chain_heads.witnessed(log) == step_by_step[-1] != step_by_step[0]
    assert set(step_by_step[-1]) == {"policy", f"approvals/{consortium.signed().digest}"}
    with log.open("ab") as file:
        file.write(b'{"event":"chain"')  # half a line, as somebody else writes it
    assert chain_heads.witnessed(log) == step_by_step[-1]
    assert site.policy(now).site == "basel"
