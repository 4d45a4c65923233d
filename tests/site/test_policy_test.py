"""`fivefold policy test` and `fivefold site people …`: what they say, their exit codes, their entries in the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.governance.custody import sign_policy
from fivefold.records.audit import entries, verify
from fivefold.study.definition import Agreements, Analysis, DifferentialPrivacy, OutputChecker, Outputs, Privacy

NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=90)).date().isoformat()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def checkers(tmp_path: Path) -> tuple[OutputChecker, ...]:
    out = []
    for name in ("ada", "bo"):
        private = keys.new_key()
        keys.write_key(tmp_path / f"{name}.key", private)
        out.append(OutputChecker(f"{name} check", "Bureau", keys.public_of(private).hex()))
    return tuple(out)


@pytest.fixture
def study_file(consortium: Any, checkers: Any, tmp_path: Path) -> Path:
    path = tmp_path / "study.signed.json"
    signed = consortium.signed(agreements=Agreements("EK 2026-1", "research", LATER), outputs=Outputs(checkers=checkers))
    path.write_bytes(signed.to_bytes())
    return path


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, dict[str, Any]]:
    """The decisions by what they are about; of several about one thing the first that denies, or the last."""
    run([str(w) for w in ("policy", "test", *words, "--json")])
    out: dict[str, dict[str, Any]] = {}
    for one in json.loads(capsys.readouterr().out)["decisions"]:
        if out.get(one["about"], {"permit": True})["permit"]:
            out[one["about"]] = one
    return out


def rewrite(consortium: Any, old: str, new: str, version: int) -> None:
    consortium.rewrite(old, new)
    consortium.rewrite(f"version: {version - 1}\n", f"version: {version}\n")
    sign_policy(consortium.site.path, consortium.custodian)


def test_every_decision_is_told_before_anyone_waits_and_no_row_is_read(
    consortium: Any, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (consortium.site.path / "rows.csv").unlink()  # there is nothing to read
    before = sorted(p for p in consortium.site.path.rglob("*"))
    assert run(["policy", "test", str(study_file), "--site", str(consortium.site.path)]) == 0
    shown = capsys.readouterr().out
    assert sorted(p for p in consortium.site.path.rglob("*")) == before
    for about in (
        "policy: version 1", "opening:", "safe projects:", "safe people:", "safe settings:", "safe data:", "analysis means:",
        "analysis slope:", "question statistics.counts/1", "question glm.", "rounds:", "outputs:", "budget:", "0 denied",
    ):  # fmt: skip
        assert about in shown, about
    text = (consortium.site.path / "site.yaml").read_text().splitlines()
    found = told(capsys, study_file, "--site", consortium.site.path)
    assert text[found["analysis slope"]["line"] - 1].startswith("methods:")
    assert text[found["budget"]["line"] - 1].startswith("budget:")


def test_a_denial_has_rule_line_and_exit_code(consortium: Any, study_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(consortium, '"glm", ', "", 2)
    consortium.rewrite("minimum_persons: 5", "minimum_persons: 9")
    consortium.rewrite("version: 2\n", "version: 3\n")
    sign_policy(consortium.site.path, consortium.custodian)
    here = ("--site", str(consortium.site.path))
    assert run(["policy", "test", str(study_file), *here, "--denied"]) == 32
    shown = capsys.readouterr().out
    assert "DENY    analysis slope: this site does not permit the method glm" in shown
    assert "permit" not in shown.replace("does not permit", "").replace("not among the methods that this site permits", "")
    found = told(capsys, study_file, *here)
    assert not found["opening"]["permit"]
    assert found["safe settings"]["rule"] == "minimum_persons"
    assert found["analysis means"]["permit"]


@pytest.mark.parametrize("how", ["nonsense", "unsigned"])
def test_a_policy_that_does_not_parse_or_is_not_signed_denies(
    consortium: Any, study_file: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    consortium.rewrite("minimum_persons: 5", "minimum_persons: five" if how == "nonsense" else "minimum_persons: 6")
    assert run(["policy", "test", str(study_file), "--site", str(consortium.site.path)]) == 32
    shown = capsys.readouterr().out
    assert "1 decisions, 1 denied" in shown
    assert ("permits nothing" if how == "nonsense" else "not the text that was signed") in shown


def test_questions_that_need_more_are_denied_by_their_own_rule(
    consortium: Any, checkers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyses = (
        Analysis(
            "by-time",
            "kaplan_meier",
            formula="Surv(age, heavy) ~ sex",
            options={"time_grid": {"step": 1, "end": 120, "event_totals": True}},
        ),
    )
    path = tmp_path / "events.signed.json"
    signed = consortium.signed(agreements=Agreements("E", "P", LATER), analyses=analyses, outputs=Outputs(checkers=checkers))
    path.write_bytes(signed.to_bytes())
    found = told(capsys, path, "--site", consortium.site.path)
    assert "question of by-time" not in found, found["question of by-time"]["sentence"]
    question = next(v for k, v in found.items() if "kaplan_meier." in k)
    assert (question["permit"], question["rule"]) == (False, "event_totals")


def test_the_budget_is_foreseen(consortium: Any, checkers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = DifferentialPrivacy("person", 9.0, 1e-6, 2.0)
    path = tmp_path / "noisy.signed.json"
    signed = consortium.signed(
        agreements=Agreements("E", "P", LATER),
        analyses=consortium.study.analyses[:1],
        privacy=Privacy(differential_privacy=noise),
        outputs=Outputs(checkers=checkers),
    )
    path.write_bytes(signed.to_bytes())
    found = told(capsys, path, "--site", consortium.site.path)
    assert found["budget"]["permit"], found["budget"]
    rewrite(consortium, '"epsilon": 10.0', '"epsilon": 0.5', 2)
    found = told(capsys, path, "--site", consortium.site.path)
    assert (found["budget"]["permit"], found["budget"]["rule"]) == (False, "budget")


def test_the_register_by_its_commands_and_its_entries(
    consortium: Any, study_file: Path, checkers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = "people: {required: [checker], training: [{course: sdc, roles: [checker]}], terms: '1'}\n"
    rewrite(consortium, "people: null", people, 2)
    here = ("--site", str(consortium.site.path))
    assert run(["site", "approve", str(study_file), "--yes", *here]) == 32
    assert "register of people" in capsys.readouterr().err
    (tmp_path / "paper.pdf").write_bytes(b"certificate")
    for checker in checkers:
        key = (checker.public_key, "--until", LATER)
        assert run(["site", "people", "grant", *key, "--name", checker.name, "--role", "checker", *here]) == 0
        words = ("--course", "sdc", "--certificate", str(tmp_path / "paper.pdf"))
        assert run(["site", "people", "train", *key, *words, *here]) == 0
        own = ("--key", str(tmp_path / f"{checker.name.split()[0]}.key"))
        assert run(["site", "people", "accept", *key, "--terms", "1", *own, *here]) == 0
    assert run(["site", "people", "list", *here]) == 0
    assert "ada check, " in capsys.readouterr().out
    assert run(["site", "approve", str(study_file), "--yes", *here]) == 0
    assert run(["site", "show", str(study_file), *here]) == 0
    shown = capsys.readouterr().out
    assert "✓ safe people: the training sdc of bo check hold until" in shown
    assert "policy permits this study" in shown
    assert run(["site", "people", "revoke", checkers[0].public_key, "--reason", "left", *here]) == 0
    assert run(["site", "prepare", str(study_file), *here]) == 32
    verify(consortium.site.state / "audit.jsonl")
    log = [e.event for e in entries(consortium.site.state / "audit.jsonl")]
    for event in ("role granted", "training", "terms of use accepted", "roles revoked", "preparation asked refused"):
        assert event in log


def test_the_two_person_rule_by_its_commands(
    consortium: Any, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two reviewers of two houses: one alone, two of one house, one person with two keys, and the lead are not enough."""
    rewrite(consortium, "projects: null", "projects: {reviewers: 2, organisations: 2}", 2)
    here = ("--site", str(consortium.site.path))
    cast = {
        "rita": ("Rita", "Ethics board"),
        "rolf": ("Rolf", "Bureau"),
        "rosa": ("Rosa", "bureau"),
        "again": ("Rolf", "Clinic"),
        "double": ("Data custodian", "Clinic"),
    }
    private = {who: keys.new_key() for who in cast} | {"lead": consortium.lead, "other": keys.new_key()}
    for who, key in private.items():
        keys.write_key(tmp_path / f"{who}.key", key)
    for who, (name, house) in (cast | {"lead": ("Ada Lead", "University")}).items():
        words = ("--name", name, "--role", "reviewer", "--organisation", house, "--until", LATER)
        assert run(["site", "people", "grant", keys.public_of(private[who]).hex(), *words, *here]) == 0

    def reviews(who: str, *words: str) -> int:
        return run(["site", "review", str(study_file), "--key", str(tmp_path / f"{who}.key"), *words, *here])

    def approves(told: str = "") -> bool:
        capsys.readouterr()
        code = run(["site", "approve", str(study_file), "--yes", *here])
        assert code == (32 if told else 0)
        assert told in capsys.readouterr().err
        return code == 0

    own = str(consortium.site.keys / "custodian.key")
    assert run(["site", "review", str(study_file), "--key", own, *here]) == 0  # who approves is no second person
    assert run(["site", "review", str(study_file), "--object", *here]) == 2  # whose word would it be?
    assert reviews("lead") == 32
    assert "nobody reviews their own study" in capsys.readouterr().err
    assert reviews("other") == 32
    assert reviews("rolf") == reviews("rosa") == reviews("again") == reviews("double") == 0
    approves("2 of 2 reviewers support the study, from 1 organisations (2 are needed)")
    assert reviews("rita", "--object") == 32  # without a reason
    assert reviews("rita", "--object", "--why", "no benefit") == 0
    approves("Rita objects to the study: no benefit")
    assert reviews("rita") == 0
    assert approves()
    rules = [e.facts.get("rule") for e in entries(consortium.site.state / "audit.jsonl") if e.event == "review signed refused"]
    assert rules == ["own_study", "projects.reviewers", "reason_missing"]
