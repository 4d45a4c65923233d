"""A site withdraws: what it says is out, and how its notice binds the others."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run as call
from fivefold.errors import NotApproved, StatementInvalid
from fivefold.governance import approvals
from fivefold.governance.custody import sign_policy
from fivefold.governance.statements import read_chain
from fivefold.governance.withdrawals import keep_notice, make_notice, own_notice, read_notice, refuse_withdrawn
from fivefold.protocol.messages import Place
from fivefold.records.audit import entries
from fivefold.records.files import write_file
from fivefold.replay.roster import roster_of
from fivefold.site.life import life_of
from fivefold.site.round_book import RoundBook
from fivefold.site.withdrawal import out_of, withdraw
from fivefold.study.definition import Analysis


def approved(consortium: Any, now: datetime) -> Any:
    signed = consortium.signed()
    approvals.approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
    return signed


def test_the_log_says_what_is_out_and_what_may_still_come_out(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    place = consortium.site.state / "runs" / "r1"
    book = RoundBook(place, "r1")
    write_file(place / "study", signed.digest.encode())
    for round in (1, 2, 3):
        book.note_answered(Place(signed.digest, "r1", round, 1), b"q", None)
    for round in (1, 2):
        book.note_released(Place(signed.digest, "r1", round, 1), ("basel", "bern", "genf"))
    out = out_of(consortium.site, signed.digest)  # the book is held by a running node, and is only read
    assert (out.opened, out.in_flight, set(out.things)) == (2, (("r1", 3),), {"totals"})
    done = withdraw(
        consortium.site, signed.digest, consortium.custodian, reason="ethics", wishes={"totals": "destroy"}, now=now
    )
    book.close()
    assert done.out == out
    log = [e for e in entries(consortium.site.state / "audit.jsonl") if e.event.startswith("withdrawal")]
    assert [e.event for e in log] == ["withdrawal asked", "withdrawal", "withdrawal notice"]
    assert log[1].facts["may_still_be_opened"] == [["r1", 3]]
    assert read_chain(consortium.site.state / "approvals" / signed.digest)[-1].facts["wishes"] == {"totals": "destroy"}


def test_trained_models_are_asked_for_by_themselves(consortium: Any, now: datetime) -> None:
    options = {"model": {"kind": "linear", "task": "regression"}, "rounds": 2}
    fit = Analysis("fit", "fedavg", formula="weight ~ age", options=options)
    for analyses, things in (((fit,), {"totals", "models"}), (consortium.study.analyses, {"totals"})):
        signed = consortium.signed(analyses=analyses)
        folder, site = consortium.site.path, consortium.site
        if analyses == (fit,):
            consortium.rewrite("methods: [", 'methods: ["fedavg", ')
            consortium.rewrite("version: 1", "version: 2")
            sign_policy(folder, consortium.custodian, now=now)
        approvals.approve(folder, signed.study, signed.digest, consortium.custodian, now=now)
        run = f"r{len(analyses)}"
        book = RoundBook(site.state / "runs" / run, run)
        write_file(site.state / "runs" / run / "study", signed.digest.encode())
        book.note_answered(Place(signed.digest, run, 1, 1), b"q", None)
        book.note_released(Place(signed.digest, run, 1, 1), ("basel", "bern", "genf"))
        book.close()
        assert set(out_of(site, signed.digest).things) == things
        withdraw(site, signed.digest, consortium.custodian, reason="", wishes=dict.fromkeys(things, "retrain"), now=now)
        said = read_chain(site.state / "approvals" / signed.digest)[-1]
        assert said.facts["wishes"] == dict.fromkeys(things, "retrain")


def test_a_notice_is_of_the_sites_own_node_about_this_study(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    notice = withdraw(consortium.site, signed.digest, consortium.custodian, reason="ethics", now=now).notice
    roster, peer = roster_of(signed.study), consortium.site.path.parent / "bern" / "state"
    said = read_notice(notice, signed.digest, roster, "basel")
    assert (said.site, said.reason, said.custodian) == ("basel", "ethics", "Data custodian")
    refuse_withdrawn(peer, signed.digest, roster, roster.names)
    keep_notice(peer, said)
    with pytest.raises(NotApproved) as caught:
        refuse_withdrawn(peer, signed.digest, roster, roster.names)
    assert caught.value.rule == "peer_withdrew"
    refuse_withdrawn(peer, signed.digest, roster, ("bern", "genf"))

    facts = {
        "study": signed.digest, "site": "genf", "custodian": "X", "reason": "", "at": "", "statement": "", "wishes": {},
    }  # fmt: skip
    forged = make_notice(facts, keys.new_key(), keys.new_key())
    for raw, of, site in ((forged, signed.digest, ""), (notice, "0" * 64, ""), (notice, signed.digest, "genf")):
        with pytest.raises(StatementInvalid):
            read_notice(raw, of, roster, site)
    with pytest.raises(StatementInvalid):
        read_notice(notice.replace(b"ethics", b"ethicz"), signed.digest, roster)


def test_a_new_approval_takes_the_sites_own_notice_back(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    withdraw(consortium.site, signed.digest, consortium.custodian, reason="", now=now)
    assert own_notice(consortium.site.state, signed.digest, "basel")
    approvals.approve(consortium.site.path, signed.study, signed.digest, consortium.custodian, now=now)
    assert not own_notice(consortium.site.state, signed.digest, "basel")


def test_a_wish_that_is_none_is_refused(consortium: Any, now: datetime) -> None:
    signed = approved(consortium, now)
    for wishes in ({"totals": "burn"}, {"houses": "keep"}):
        with pytest.raises(NotApproved) as caught:
            withdraw(consortium.site, signed.digest, consortium.custodian, reason="", wishes=wishes, now=now)
        assert caught.value.rule == "wish"
    approvals.check_approval(consortium.site.path, signed.digest, now)


def test_by_the_command_line(consortium: Any, now: datetime, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = approved(consortium, now)
    study, note = tmp_path / "s.signed.json", tmp_path / "notice.json"
    study.write_bytes(signed.to_bytes())
    site, peer = str(consortium.site.path), str(tmp_path / "bern")
    assert call(["site", "withdraw", str(study), "--site", site, "--reason", "new board", "--out", str(note)]) == 0
    assert call(["site", "notice", str(note), str(study), "--site", peer]) == 0
    assert "basel withdrew" in capsys.readouterr().out
    assert own_notice(tmp_path / "bern" / "state", signed.digest, "basel") == note.read_bytes()


def test_somebody_who_sits_there_is_asked_for_each_thing(consortium: Any, now: datetime, tmp_path: Path) -> None:
    """At a real terminal: a word that is no wish is asked again; a later word takes the place of the first."""
    signed = approved(consortium, now)
    study, run = tmp_path / "s.signed.json", consortium.site.state / "runs" / "r1"
    study.write_bytes(signed.to_bytes())
    book = RoundBook(run, "r1")
    write_file(run / "study", signed.digest.encode())
    for round in (1, 2):
        book.note_answered(Place(signed.digest, "r1", round, 1), b"q", None)
    book.note_released(Place(signed.digest, "r1", 1, 1), ("basel", "bern", "genf"))
    book.close()
    words = ["site", "withdraw", str(study), "--site", str(consortium.site.path), "--reason", "new board"]
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"burn\ndestroy\n")
        done = subprocess.run(
            [sys.executable, "-m", "fivefold.cli.main", *words], stdin=theirs, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "1 totals that were opened with this site in, and results made of them; your wish: destroy" in done.stdout
    assert "run r1, round 2: this site's masked answer is out; the others may still open its sum" in done.stdout
    assert call([*words, "--wish", "totals=retrain"]) == 0
    notice = read_notice(own_notice(consortium.site.state, signed.digest, "basel"), signed.digest, roster_of(signed.study))
    assert notice.wishes == {"totals": "retrain"}
    told = [a.why for a in life_of(consortium.site, signed).acts if a.what == "withdraw"]
    assert told == ["new board; totals: destroy", "new board; totals: retrain"]


def test_what_left_while_the_custodian_signed_is_told_with_the_notice(
    consortium: Any, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that runs answers one more round between the first look at its books and the statement on disk."""
    signed = approved(consortium, now)
    run = consortium.site.state / "runs" / "r1"
    book = RoundBook(run, "r1")
    write_file(run / "study", signed.digest.encode())
    write = approvals.withdraw

    def late(*words: Any, **more: Any) -> None:
        book.note_answered(Place(signed.digest, "r1", 1, 1), b"q", None)
        write(*words, **more)

    monkeypatch.setattr(approvals, "withdraw", late)
    done = withdraw(consortium.site, signed.digest, consortium.custodian, reason="", now=now)
    book.close()
    assert done.out.in_flight == (("r1", 1),)
    log = [e for e in entries(consortium.site.state / "audit.jsonl") if e.event.startswith("withdrawal")]
    assert [e.facts.get("may_still_be_opened") for e in log] == [None, [], [["r1", 1]]]
