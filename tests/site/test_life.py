"""A study's life at one site: what a custodian says, in which order, and what the log and the table make of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run as call
from fivefold.errors import NotApproved, StatementInvalid, StudyInvalid
from fivefold.governance import approvals, method_code, statements
from fivefold.governance.answers import Wanted, read_counter
from fivefold.governance.evidence import read_evidence
from fivefold.governance.proposals import propose, read_proposal
from fivefold.governance.threats import threats
from fivefold.records.audit import entries
from fivefold.site import approved_code, life
from fivefold.site.evidence import evidence_of
from fivefold.site.withdrawal import withdraw
from fivefold.study import versions
from fivefold.study.definition import Agreements, DifferentialPrivacy
from fivefold.study.digest import load_signed, sign_study

NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=90)).date().isoformat()


@pytest.fixture
def now() -> datetime:
    return NOW


def of(consortium: Any, **changes: Any) -> Any:
    """The consortium's study, which ends in three months."""
    return consortium.signed(agreements=Agreements("EK 2026-1", "research", LATER), **changes)


def test_review_refusal_approval_withdrawal_close(consortium: Any, now: datetime) -> None:
    signed, site, key = of(consortium), consortium.site, consortium.custodian
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
    told = read_evidence(evidence_of(site, signed), signed.study, signed.digest)
    assert told.withdrawn  # the package tells the withdrawal, although the closing came after it


def test_days_pass_by_themselves(consortium: Any, now: datetime) -> None:
    signed, site = of(consortium), consortium.site
    last = (now + timedelta(days=3)).date()
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, expires=last, now=now)
    assert life.life_of(site, signed, now).state == "approved"
    late = now + timedelta(days=4)
    found = life.life_of(site, signed, late)
    assert (found.state, found.acts[-1].what, found.acts[-1].role) == ("expired", "expire", "clock")


def test_words_that_cannot_follow_close_the_study(consortium: Any, now: datetime) -> None:
    """Somebody with the custodian's key and the folder, but not the commands, writes an approval behind the end."""
    signed, site = of(consortium), consortium.site
    approvals.approve(site.path, signed.study, signed.digest, consortium.custodian, now=now)
    chain = approvals.chain_of(site.path, signed.digest)
    facts = dict(statements.read_chain(chain)[0].facts)
    life.end(site, signed.digest, why="over")
    statements.write(chain, "approval", facts, consortium.custodian)
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(site.path, signed.digest, now, study=signed.study)
    assert caught.value.rule == "approval_altered"


def test_an_approval_of_another_key_is_told_and_does_not_count(consortium: Any, now: datetime) -> None:
    signed, site = of(consortium), consortium.site
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
    signed = of(consortium)
    raw = propose(signed, consortium.lead, now=now)
    assert read_proposal(raw, signed.study, signed.digest).version == 1
    other = of(consortium, title="Another")
    for study, digest, text in (
        (other.study, other.digest, raw), (signed.study, signed.digest, raw.replace(b"research", b"commerce"))
    ):  # fmt: skip
        with pytest.raises(StatementInvalid):
            read_proposal(text, study, digest)


def test_the_table_of_threats_is_part_of_the_proposal(
    consortium: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who approves sees it, and sees where the lead's own table says otherwise."""
    signed, study = of(consortium), tmp_path / "s.signed.json"
    study.write_bytes(signed.to_bytes())
    raw = propose(signed, consortium.lead)
    said = read_proposal(raw, signed.study, signed.digest)
    assert said.threats == {t.name: t.status for t in threats(signed.study)}
    assert set(said.threats.values()) == {"covered", "in part"}
    told = json.loads(raw)["facts"]
    membership = next(t for t in told["threats"] if t["threat"] == "membership inference")
    membership |= {"status": "covered", "open": []}
    told["threats"] = [t for t in told["threats"] if t["threat"] != "poisoning"]
    for facts, lines in ((json.loads(raw)["facts"], []), (told, [
        "threats   membership inference: in part by this installation, covered as proposed",
        "threats   poisoning: in part by this installation, not looked at as proposed",
    ])):  # fmt: skip
        (tmp_path / "s.proposal.json").write_bytes(statements.signed("proposal", facts, consortium.lead))
        assert call(["site", "approve", str(study), "--yes", "--site", str(consortium.site.path)]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert [line for line in shown if line.startswith("threats ")] == lines
        assert "  include: age >= 18" in shown
        assert any(line.startswith("  membership inference: in part (exact tables") for line in shown)
        assert "Who lets it out" in shown


def test_a_counter_proposal_is_signed_by_custodian_and_node(consortium: Any, now: datetime) -> None:
    signed, site = of(consortium), consortium.site
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
    signed = of(consortium)
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
    assert "refuse → refused\n      custodian: Data custodian (" in shown  # a narrow terminal: lines of its own for each act
    assert "\n      no vote\n      study " in shown
    log = [e for e in entries(consortium.site.state / "audit.jsonl") if e.event in ("review", "refusal", "statement")]
    assert [e.event for e in log] == ["review", "refusal", "refusal", "statement"]
    assert log[1].facts["reason"] == ""  # the attempt without a reason was logged, and refused


def test_a_counter_proposal_becomes_a_version_for_all(
    consortium: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """basel wants no sex and ten rounds; the lead accepts; the old approvals do not hold for what comes of it."""
    (tmp_path / "s.signed.json").write_bytes(of(consortium).to_bytes())
    keys.write_key(tmp_path / "lead.key", consortium.lead)
    study, note, here = str(tmp_path / "s.signed.json"), str(tmp_path / "c.json"), str(consortium.site.path)
    first = load_signed(tmp_path / "s.signed.json")
    (tmp_path / "s.proposal.json").write_bytes(propose(first, consortium.lead))
    words = ["--without", "sex", "--rounds", "10", "--why", "sex is not needed", "--out", note]
    assert call(["site", "counter", study, *words, "--site", here]) == 0
    assert life.life_of(consortium.site, first).state == "under review"
    assert call(["study", "counter", note, study]) == 0  # looks, and changes nothing
    assert "basel (Data custodian" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.v2.*"))
    assert call(["study", "counter", note, study, "--key", here + "/keys/custodian.key"]) == 15  # not the lead's
    assert call(["study", "counter", note, study, "--key", str(tmp_path / "lead.key")]) == 0
    second = load_signed(tmp_path / "s.v2.signed.json")
    assert [a.formula for a in second.study.analyses] == ["", "weight ~ age"]
    assert dict(second.study.variables).keys() == {"age", "weight"}
    said = read_proposal((tmp_path / "s.v2.proposal.json").read_bytes(), second.study, second.digest)
    assert (said.version, said.supersedes) == (2, first.digest)
    assert said.answers == (read_counter(Path(note).read_bytes(), first.study, first.digest).identity,)
    assert "sex is not needed" in said.why

    assert call(["site", "approve", study, "--yes", "--site", here]) == 0  # for all that, the custodian approves the first one
    with pytest.raises(NotApproved) as caught:
        approvals.check_approval(consortium.site.path, second.digest, datetime.now(UTC), study=second.study)
    assert caught.value.rule == "no_approval"
    assert call(["study", "counter", note, str(tmp_path / "s.v2.signed.json")]) == 39  # it answered the first version
    capsys.readouterr()
    assert call(["site", "approve", str(tmp_path / "s.v2.signed.json"), "--yes", "--site", here]) == 0
    assert "the approval of the version before" in capsys.readouterr().out
    approvals.check_approval(consortium.site.path, second.digest, datetime.now(UTC), study=second.study)
    with pytest.raises(NotApproved) as caught:  # no site answers for two versions of one study
        approvals.check_approval(consortium.site.path, first.digest, datetime.now(UTC), study=first.study)
    assert caught.value.rule == "approval_withdrawn"
    assert life.life_of(consortium.site, first).state == "withdrawn"


def test_a_lead_supersedes_no_other_leads_study(consortium: Any, tmp_path: Path) -> None:
    other = keys.new_key()
    first = of(consortium)
    life.reviewed(consortium.site, first, propose(first, consortium.lead))
    approvals.approve(consortium.site.path, first.study, first.digest, consortium.custodian)
    before = read_proposal(propose(first, consortium.lead), first.study, first.digest)
    lead = replace(first.study.lead, public_key=keys.public_of(other).hex())
    theirs = sign_study(replace(first.study, lead=lead, title="Theirs"), other)
    life.reviewed(consortium.site, theirs, propose(theirs, other, before=before))
    assert life.superseded(consortium.site, theirs, consortium.custodian) == ""
    approvals.check_approval(consortium.site.path, first.digest, datetime.now(UTC), study=first.study)


def test_what_a_version_leaves_out_and_what_it_cannot(consortium: Any) -> None:
    study = consortium.study
    fewer = versions.with_rounds(study, 3)
    assert [dict(a.options) for a in fewer.analyses] == [{}, {"family": "gaussian"}]
    logit = replace(study.analyses[1], formula="heavy ~ age + log(weight) + age:sex", options={"family": "binomial"})
    tables = replace(study.analyses[0], options={"grid": {"age": (0, 50, 120), "sex": (1,)}, "tables": (("sex", "heavy"),)})
    both = replace(study, analyses=(tables, logit))
    made = versions.without_variables(versions.with_rounds(both, 3), ["sex"])
    assert made.analyses[1].formula == "heavy ~ age + log(weight)"
    assert made.analyses[1].options["max_iterations"] == 3
    assert made.analyses[0].options == {"grid": {"age": (0, 50, 120)}}
    for wrong in (
        lambda: versions.without_variables(study, ["age"]),  # the cohort needs it
        lambda: versions.without_variables(study, ["weight"]),  # a derived variable needs it
        lambda: versions.with_noise(study, 2.0),
        lambda: versions.without_analyses(study, ["means", "slope"]),
    ):
        with pytest.raises(StudyInvalid):
            wrong()
    out = versions.kept_out(study, "basel", (), ["sex"])
    assert [a.sites for a in out.analyses] == [(), ("bern", "genf")]
    with pytest.raises(StudyInvalid) as caught:  # two sites would learn each other's numbers
        load_signed(sign_study(out, consortium.lead).to_bytes())
    assert "every sum of this study needs 3" in caught.value.message
    noise = DifferentialPrivacy("person", 3.0, 1e-6, 1.5)
    noisy = replace(study, privacy=replace(study.privacy, differential_privacy=noise))
    for wanted, found in ((2.0, 2.0), (1.0, 1.5)):  # never less
        assert versions.with_noise(noisy, wanted).privacy.differential_privacy.noise_multiplier == found


def test_a_release_that_changes_a_method_shows_the_lines(
    consortium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One step: what changed since the approval is shown line by line, and `--again` takes the same choices."""
    study, here = tmp_path / "s.signed.json", str(consortium.site.path)
    study.write_bytes(of(consortium).to_bytes())
    found = load_signed(study)
    assert call(["site", "approve", str(study), "--yes", "--analysis", "means", "--site", here]) == 0
    capsys.readouterr()
    later = tmp_path / "later"
    for part in ("algorithms", "models"):
        shutil.copytree(method_code.HOME / "fivefold" / part, later / "fivefold" / part)
    changed = later / "fivefold" / "algorithms" / "statistics.py"
    changed.write_text(changed.read_text("utf-8") + "SEVEN = 7\n", "utf-8")
    monkeypatch.setattr(method_code, "HOME", later)
    method_code.files_of.cache_clear()
    try:
        with pytest.raises(NotApproved) as caught:
            approvals.check_approval(consortium.site.path, found.digest, NOW, study=found.study)
        assert caught.value.rule == "approval_code_changed"
        assert call(["site", "approve", str(study), "--yes", "--again", "--site", here]) == 0
        shown = capsys.readouterr().out
        assert "+++ now/fivefold/algorithms/statistics.py" in shown
        assert [line for line in shown.splitlines() if line.startswith(("  +", "  -"))][2:] == ["  +SEVEN = 7"]
        assert approvals.check_approval(consortium.site.path, found.digest, NOW, study=found.study).analyses == ("means",)
        kept = consortium.site.state / "code"
        for copy in kept.glob("*.py"):  # a copy that was altered is not shown as what was approved
            copy.write_bytes(b"")
        changed.write_text(changed.read_text("utf-8") + "EIGHT = 8\n", "utf-8")
        method_code.files_of.cache_clear()
        (line,) = approved_code.difference(consortium.site, found.study, found.digest)
        assert "is not kept here" in line
    finally:
        monkeypatch.undo()
        method_code.files_of.cache_clear()
