"""`fivefold site …` as a custodian uses it: what it prints, its exit codes, its audit entries."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.governance.approvals import check_approval
from fivefold.records.audit import entries, verify
from fivefold.site.folder import create, policy_text, policy_values
from fivefold.study.definition import Agreements

NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=90)).date().isoformat()


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def signed(consortium: Any) -> Any:
    return consortium.signed(agreements=Agreements("EK 2026-1", "research", LATER))


@pytest.fixture
def study_file(consortium: Any, signed: Any, tmp_path: Path) -> Path:
    path = tmp_path / "study.signed.json"
    path.write_bytes(signed.to_bytes())
    return path


def call(*arguments: object) -> int:
    return run([str(a) for a in arguments])


def events(consortium: Any) -> list[str]:
    log = consortium.site.state / "audit.jsonl"
    verify(log)
    return [e.event for e in entries(log)]


def test_init_prints_the_key_to_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("site", "init", tmp_path / "new", "--name", "chur") == 0
    public = (tmp_path / "new" / "keys" / "node.pub").read_text().strip()
    shown = capsys.readouterr().out
    assert public in shown
    assert keys.fingerprint(bytes.fromhex(public)) in shown
    for name in ("node.key", "custodian.key", "snapshot.key"):
        assert (tmp_path / "new" / "keys" / name).stat().st_mode & 0o077 == 0
    assert call("site", "show", "--site", tmp_path / "new") == 0
    assert call("site", "init", tmp_path / "new", "--name", "chur") == 51


def test_the_whole_way(consortium: Any, study_file: Path, signed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--site", consortium.site.path)
    assert call("site", "check", study_file, *here) == 0
    shown = capsys.readouterr().out
    assert "40 rows of 40 persons in the cohort" in shown
    assert "weight" in shown
    assert call("site", "prepare", study_file, *here) == 31
    assert "fivefold site approve" in capsys.readouterr().err
    assert call("site", "approve", study_file, "--yes", "--analysis", "means", *here) == 0
    shown = capsys.readouterr().out
    assert signed.digest in shown.replace("\n", "")
    assert "analyses means" in shown
    assert check_approval(consortium.site.path, signed.digest, datetime.now(UTC)).analyses == ("means",)
    assert call("site", "prepare", study_file, *here) == 0
    assert call("site", "show", study_file, *here) == 0
    shown = capsys.readouterr().out
    assert "approved by Data custodian" in shown
    assert "policy permits this study" in shown
    assert call("site", "withdraw", signed.digest, "--reason", "ethics", *here) == 0
    assert call("site", "prepare", study_file, *here) == 31
    assert call("site", "close", study_file, *here) == 0
    assert "destroyed" in capsys.readouterr().out
    log = events(consortium)
    for event in ("mapping check", "preparation asked refused", "approval", "snapshot", "withdrawal", "snapshot deleted"):
        assert event in log
    assert log.index("approval") < log.index("snapshot") < log.index("withdrawal") < log.index("snapshot deleted")


def test_a_no_is_a_no(consortium: Any, study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert call("site", "approve", study_file, "--site", consortium.site.path) != 0
    assert not (consortium.site.state / "approvals").exists()


def test_each_mistake_has_its_code_and_an_entry(
    consortium: Any, study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = consortium.site.path
    here = ("--site", site)

    def fails(code: int, *arguments: object, entry: bool = True) -> str:
        before = len(events(consortium)) if entry else 0
        assert call(*arguments, *here) == code
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert shown.err.strip()
        if entry:
            assert len(events(consortium)) > before
            assert events(consortium)[-1].endswith("refused")
        return shown.err

    fails(11, "site", "approve", tmp_path / "none.json", "--yes")
    altered = json.loads(study_file.read_text())
    altered["study"]["title"] = "Another"
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    fails(13, "site", "approve", tmp_path / "altered.json", "--yes")
    fails(15, "site", "approve", study_file, "--yes", "--key", site / "keys" / "node.key")
    fails(15, "site", "approve", study_file, "--yes", "--key", tmp_path / "none.key")
    fails(31, "site", "approve", study_file, "--yes", "--analysis", "nonsense")
    fails(31, "site", "withdraw", "0" * 64)
    fails(32, "site", "sign-policy")
    for change, code in (
        (("weight_g", "weight_kg"), 22),
        (("unit: g", "unit: m"), 23),
        (("rows.csv", "none.csv"), 21),
        (("person", "p"), 26),
    ):
        text = (site / "mapping.yaml").read_text()
        (site / "mapping.yaml").write_text(text.replace(*change))
        fails(code, "site", "check", study_file)
        (site / "mapping.yaml").write_text(text)
    consortium.rewrite("minimum_persons: 5", "minimum_persons: 50")
    assert "not the text that was signed" in fails(32, "site", "approve", study_file, "--yes")
    consortium.rewrite("minimum_persons: 50", "minimum_persons: fifty")
    assert "minimum_persons" in fails(32, "site", "prepare", study_file)
    assert call("site", "show", "--site", tmp_path / "nowhere") == 32


def test_a_policy_that_refuses_names_rule_and_line(
    consortium: Any, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--site", consortium.site.path)
    consortium.rewrite("minimum_persons: 5", "minimum_persons: 50")
    consortium.rewrite("version: 1", "version: 2")
    assert call("site", "sign-policy", *here) == 0
    assert call("site", "approve", study_file, "--yes", *here) == 32
    line = (consortium.site.path / "site.yaml").read_text().splitlines().index("minimum_persons: 50") + 1
    assert f"line {line}, rule minimum_persons" in " ".join(capsys.readouterr().err.split())
    assert call("site", "show", study_file, *here) == 0
    assert "policy refuses this study" in capsys.readouterr().out


def test_keys_rotate_and_are_revoked(consortium: Any, study_file: Path, signed: Any, tmp_path: Path) -> None:
    site = consortium.site.path
    here = ("--site", site)
    assert call("site", "approve", study_file, "--yes", *here) == 0
    new = tmp_path / "new.key"
    assert call("keys", "new", new) == 0
    assert call("site", "keys", "rotate", "custodian", "--new", new, *here) == 0
    check_approval(site, signed.digest, datetime.now(UTC))
    assert call("site", "withdraw", study_file, *here) == 15  # the old key says nothing any more
    assert call("site", "withdraw", study_file, "--key", new, *here) == 0
    assert call("site", "keys", "rotate", "custodian", *here) == 2
    before = (site / "keys" / "node.pub").read_text()
    assert call("site", "keys", "rotate", "node", "--key", new, *here) == 0
    assert (site / "keys" / "node.pub").read_text() != before
    assert call("site", "keys", "revoke", "nonsense", "--reason", "lost", "--key", new, *here) == 15
    old = keys.public_of(consortium.custodian).hex()
    assert call("site", "keys", "revoke", old, "--reason", "lost", "--key", new, *here) == 0
    assert call("site", "approve", study_file, "--yes", "--key", new, *here) == 32
    assert "key revocation" in events(consortium)


def test_opt_out(consortium: Any, study_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--site", consortium.site.path)
    assert call("site", "opt-out", "P001", *here) == 0
    assert call("site", "check", study_file, *here) == 0
    assert "39 persons in the cohort" in " ".join(capsys.readouterr().out.split())


def test_the_skeleton_is_the_model(tmp_path: Path) -> None:
    """Each key of the policy stands in the skeleton, so that a custodian sees all that can be set."""
    from fivefold.governance.policy import Policy

    values = policy_values("a", "C", "0" * 64, NOW.date())
    aliases = {name: field.alias or name for name, field in Policy.model_fields.items()}
    assert set(aliases.values()) - set(values) == {"max_epsilon"}
    read = Policy.of(policy_text(values).encode())
    for name, field in Policy.model_fields.items():
        if not field.is_required() and name not in ("methods", "opt_outs", "max_epsilon", "budget"):
            assert getattr(read, name) == field.default, name


def test_a_passphrase_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = create(tmp_path / "s", "s")
    path = site.keys / "custodian.key"
    private = keys.read_key(path)
    path.unlink()
    keys.write_key(path, private, "open sesame")
    text = (site.path / "site.yaml").read_text()
    (site.path / "site.yaml").write_text(text.replace("version: 1", "version: 2"))
    monkeypatch.setenv("FIVEFOLD_PASSPHRASE", "open sesame")
    assert call("site", "sign-policy", "--site", site.path) == 0


def test_help_is_there_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("init", "sign-policy", "check", "show", "approve", "withdraw", "prepare", "close", "opt-out", "keys"):
        assert call("site", command, "--help") == 0
    assert "--site" in capsys.readouterr().out


def test_studies_of_another_lead_are_refused_where_leads_are_listed(consortium: Any, study_file: Path) -> None:
    stranger = keys.public_of(keys.new_key()).hex()
    consortium.rewrite("leads: []", f"leads: [{stranger}]")
    consortium.rewrite("version: 1", "version: 2")
    here = ("--site", consortium.site.path)
    assert call("site", "sign-policy", *here) == 0
    assert call("site", "approve", study_file, "--yes", *here) == 32
    assert replace(consortium.study).lead.public_key != stranger
