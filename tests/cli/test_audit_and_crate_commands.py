"""`fivefold audit` and `fivefold crate`: what is said, and the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.records.audit import AuditLog
from fivefold.records.crate import write_crate
from fivefold.records.provenance import AnalysisRecord, LeadRecord, RoundRecord, RunRecord, SiteRecord

KEY = bytes(range(32))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, KEY, "coordinator") as log:
        log.write("question", round=1, sites=["North", "East"])
        log.closed(status="completed")
    return path


@pytest.fixture
def crate(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "study.yaml").write_text("title: t\n")
    (folder / "result.json").write_text('{"analyses": []}')
    record = RunRecord(
        run="r1",
        title="Survival in lung cancer",
        question="Do women live longer?",
        lead=LeadRecord("Ada Lead", "University"),
        study_file="study.yaml",
        study_digest="ab" * 32,
        dictionary="lung",
        dictionary_version="1",
        dictionary_digest="cd" * 32,
        sites=(SiteRecord("North", "North Hospital"), SiteRecord("South", "South Hospital")),
        analyses=(AnalysisRecord("cox", "cox", (RoundRecord(1, ("cox.score/1",), ("North",), ("South",)),)),),
        engine="local",
        software={"fivefold": "0.1.0"},
        started="2026-11-24T15:00:00Z",
        ended="2026-11-24T15:00:09Z",
        licence="CC-BY-4.0",
    )
    write_crate(folder, record)
    return folder


@pytest.fixture
def no_validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIVEFOLD_ROCRATE_VALIDATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_a_whole_log_is_verified(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify", str(log)]) == 0
    said = capsys.readouterr().out
    assert "is whole: 3 entries of coordinator" in said
    assert keys.fingerprint(keys.public_of(KEY)) in said
    assert "no closing entry" not in said


def test_a_changed_log_ends_with_code_55_and_names_the_line(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_bytes(log.read_bytes().replace(b"North", b"Worth"))
    assert run(["audit", "verify", str(log)]) == 55
    said = capsys.readouterr()
    assert said.out == ""
    assert "line 2 of audit.jsonl was altered" in said.err
    assert "compare it with the copies" in said.err


def test_the_key_and_a_witness_head_are_compared(log: Path, tmp_path: Path) -> None:
    shutil.copy(f"{log}.head", tmp_path / "witness")
    public = keys.public_of(KEY).hex()
    assert run(["audit", "verify", str(log), "--key", public, "--head", str(tmp_path / "witness")]) == 0
    assert run(["audit", "verify", str(log), "--key", keys.public_of(keys.new_key()).hex()]) == 55
    assert run(["audit", "verify", str(log), "--key", "abc"]) == 15
    assert run(["audit", "verify", str(log), "--head", str(tmp_path / "none")]) == 50
    log.unlink()
    Path(f"{log}.head").unlink()
    with AuditLog(log, KEY, "coordinator") as anew:
        for _ in range(3):
            anew.write("question")
    assert run(["audit", "verify", str(log), "--head", str(tmp_path / "witness")]) == 55


def test_a_report_as_json(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify", str(log), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["entries"] == 3
    assert report["closed"] is True
    assert report["events"] == {"opened": 1, "question": 1, "closed": 1}
    log.write_bytes(log.read_bytes()[:-1])
    assert run(["audit", "verify", str(log), "--json"]) == 55
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "AuditBroken"


def test_an_unsigned_and_open_log_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AuditLog(tmp_path / "audit.jsonl", None, "North").close()
    assert run(["audit", "verify", str(tmp_path / "audit.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "1 entry of North" in said
    assert "not signed" in said
    assert "no closing entry" in said


def test_entries_are_shown(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "show", str(log)]) == 0
    said = capsys.readouterr().out
    assert "question" in said
    assert "sites North, East" in said
    assert run(["audit", "show", str(log), "--event", "closed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"] == {"status": "completed"}
    assert run(["audit", "show", str(log), "--last", "1"]) == 0
    assert "question" not in capsys.readouterr().out


def test_a_log_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "verify", str(tmp_path / "none")]) == 50
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["head"], ["export"], ["report"], ["verify"], ["show"]])
def test_a_folder_is_no_log(verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *verb, str(tmp_path), *(["--out", str(tmp_path / "a.md")] if verb == ["report"] else [])]) == 50
    assert "is a folder, not a log" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "code"), [("head", 51), ("export", 51), ("report", 2)])
def test_nothing_is_written_over_the_log_itself(verb: str, code: int, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = log.read_bytes()
    assert run(["audit", verb, str(log), "--out", str(log)]) == code
    assert log.read_bytes() == before
    out = log.with_name("out.md")
    assert run(["audit", verb, str(log), "--out", str(out)]) == 0
    assert run(["audit", verb, str(log), "--out", str(out)]) == 0, "over an earlier one of its kind"
    assert run(["audit", verb, str(log), "--out", str(log.parent)]) in (2, 51)
    assert "--out" in capsys.readouterr().err or verb != "report"


@pytest.mark.parametrize(
    "words", [["model", "export"], ["crate", "build"], ["crate", "reproduce"], ["study", "close", "--key", "k"], ["report"]]
)
def test_what_is_no_runs_folder_is_called_that(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, str(tmp_path / "none")]) in (11, 56, 59)
    said = capsys.readouterr().err
    assert "is no run's folder" in said or "is not a packed crate" in said or "there is no " in said


@pytest.mark.usefixtures("no_validator")
def test_without_a_validator_files_are_compared_and_it_is_said(crate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "validate", str(crate)]) == 0
    said = capsys.readouterr().out
    assert "every file" in said
    assert "rocrate-validator is not installed" in said
    assert "make_env.sh crate" in said
    assert run(["crate", "validate", str(crate), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": "unchanged", "profile": "not checked"}


@pytest.mark.usefixtures("no_validator")
def test_a_changed_file_ends_with_code_56(crate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (crate / "result.json").write_text('{"analyses": [1]}')
    assert run(["crate", "validate", str(crate)]) == 56
    assert "result.json was changed since the crate was written" in capsys.readouterr().err


def test_the_validator_is_called_and_its_word_counts(
    crate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in that writes the report which the real one would; the real one is called in tests/records."""
    stand_in = tmp_path / "rocrate-validator"
    python = tmp_path / "python-stand-in"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    report = '{"passed": %s, "issues": [%s]}'
    stand_in.write_text(f"#!{python}\n")
    stand_in.chmod(0o755)

    def answers(passed: str, issues: str) -> None:
        body = report % (passed, issues)
        python.write_text(
            f"#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = -o ] && printf '%s' '{body}' > \"$2\"; shift; done\nexit 0\n"
        )

    monkeypatch.setenv("FIVEFOLD_ROCRATE_VALIDATOR", str(stand_in))
    answers("true", "")
    assert run(["crate", "validate", str(crate)]) == 0
    assert "accepts it as a Provenance Run Crate 0.5 (REQUIRED rules)" in capsys.readouterr().out
    answers("false", '{"message": "no licence", "violatingEntity": "./", "check": {"identifier": "x_1"}}')
    assert run(["crate", "validate", str(crate)]) == 56
    assert "no licence [x_1] at ./" in capsys.readouterr().err
    answers("false", "")
    assert run(["crate", "validate", str(crate)]) == 56


def test_a_crate_is_shown(crate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crate", "show", str(crate)]) == 0
    said = capsys.readouterr().out
    for words in (
        "Survival in lung cancer",
        "Do women live longer?",
        "asked by Ada Lead",
        "✓ North Hospital",
        "✗ South Hospital",
    ):
        assert words in said
    assert run(["crate", "show", str(crate.parent)]) == 56
