"""`fivefold study`, as a lead goes through it: new, check, show, estimate, freeze, sign, verify, vary."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fivefold.auth import keys
from fivefold.cli.main import run
from fivefold.cli.study import app
from fivefold.errors import StudyNotFound
from fivefold.study.digest import load_signed, signed_file
from fivefold.study.envelope import load_variation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study with keys and an envelope, in order; `lead.key` beside it."""
    assert run(["study", "new", str(tmp_path), "--yes"]) == 0
    text = (tmp_path / "study.yaml").read_text(encoding="utf-8")
    keys.write_key(tmp_path / "lead.key", bytes([1]) * 32)
    names = ["the lead's key: fivefold keys show lead.key"]
    names += [f"the key of {n}: fivefold keys show node.key" for n in ("north", "south", "east")]
    for i, name in enumerate(names):
        text = text.replace(f'"<{name}>"', keys.public_of(bytes([i + 1]) * 32).hex())
    text = text.replace("privacy:\n", "envelope: {variables: [age, outcome], methods: [statistics], fits: 2}\nprivacy:\n", 1)
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "study.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def out_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


# ---- new ------------------------------------------------------------------------------------------------------------
def test_new_asks_and_writes_what_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = ['A "quoted": title', "Why?", "Ada", "Somewhere", "", "a, b c", "patient", "EK 1", "Research", "2031-12-31"]
    done = CliRunner().invoke(app, ["new", str(tmp_path / "n")], input="\n".join(answers) + "\n", catch_exceptions=False)
    assert done.exit_code == 0, done.output
    capsys.readouterr()
    assert run(["study", "check", str(tmp_path / "n" / "study.yaml"), "--json"]) == 0
    found = out_json(capsys)
    assert found["faults"] == []
    assert len(found["open"]) == 4
    run(["study", "show", str(tmp_path / "n" / "study.yaml"), "--json"])
    shown = out_json(capsys)
    assert shown["title"] == 'A "quoted": title'
    assert [s["name"] for s in shown["sites"]] == ["a", "b", "c"]
    assert shown["person"] == "patient"


def test_new_from_a_file_of_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.yaml"
    answers.write_text("title: From a file\nsites: [x1, x2, x3, x4]\nexpires: 2033-01-31\n")
    assert run(["study", "new", str(tmp_path / "n"), "--answers", str(answers)]) == 0
    capsys.readouterr()
    run(["study", "show", str(tmp_path / "n" / "study.yaml"), "--json"])
    shown = out_json(capsys)
    assert (shown["title"], len(shown["sites"]), shown["agreements"]["expires"]) == ("From a file", 4, "2033-01-31")
    answers.write_text("titel: x\n")
    assert run(["study", "new", str(tmp_path / "m"), "--answers", str(answers)]) == 12
    assert "Did you mean 'title'?" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_answers_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "new", str(tmp_path), "--answers", str(tmp_path / "absent.yaml")]) == 11
    assert "there is no file" in capsys.readouterr().err


def test_new_overwrites_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "study.yaml").read_bytes()
    assert run(["study", "new", str(folder), "--yes"]) == 12
    assert "not overwritten" in capsys.readouterr().err
    assert (folder / "study.yaml").read_bytes() == before


# ---- check, show, estimate ------------------------------------------------------------------------------------------
def test_check_says_what_the_sums_withstand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "check", str(folder / "study.yaml"), "--ready"]) == 0
    printed = capsys.readouterr().out
    assert "is in order" in printed
    assert "A round fails if any of the 3 sites drops out" in printed
    assert "(t): 3" in printed


def test_check_names_faults_with_lines_and_exits_12(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, "    - age >= 18", "    - agee >= 18")
    edit(folder, "  minimum_sites: 3 ", "  minimum_sites: 2 ")
    assert run(["study", "check", str(folder / "study.yaml")]) == 12
    printed = capsys.readouterr().out
    assert "faults (2):" in printed
    assert "no variable 'agee'. Did you mean 'age'?" in printed
    assert run(["study", "check", str(folder / "study.yaml"), "--json"]) == 12
    faults = out_json(capsys)["faults"]
    lines = (folder / "study.yaml").read_text(encoding="utf-8").splitlines()
    assert "agee" in lines[faults[0]["line"] - 1]
    assert "minimum_sites" in lines[faults[1]["line"] - 1]


def test_missing_keys_are_open_until_freezing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, keys.public_of(bytes([2]) * 32).hex(), '"<later>"')
    assert run(["study", "check", str(folder / "study.yaml")]) == 0
    assert "complete but for what is still open" in capsys.readouterr().out
    assert run(["study", "check", str(folder / "study.yaml"), "--ready"]) == 12
    for command in (["freeze"], ["sign", "--key", str(folder / "lead.key")]):
        assert run(["study", command[0], str(folder / "study.yaml"), *command[1:]]) == 15
        assert "public key of site 'north' is still missing" in capsys.readouterr().err
    assert not list(folder.glob("*.json"))


def test_show_says_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "show", str(folder / "study.yaml")]) == 0
    printed = capsys.readouterr().out
    for words in [
        "A first federated study", "north", "age >= 18", "Age at inclusion (number 0 to 120 year)", "method: statistics",
        "may vary without asking again (2 times)", "fewer than 5 persons", "last day:", "digest ",
        keys.fingerprint(keys.public_of(bytes([1]) * 32)),
    ]:  # fmt: skip
        assert words in printed


def test_estimate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "estimate", str(folder / "study.yaml"), "--json"]) == 0
    bounded = out_json(capsys)
    assert bounded["epsilon"] is None
    assert bounded["rounds"] > 0
    assert run(["study", "estimate", str(folder / "study.yaml"), "--trip-seconds", "5"]) == 0
    printed = capsys.readouterr().out
    assert "drop-outs in a round: 0" in printed
    assert "none is spent or guaranteed" in printed
    assert "at 5 s a trip" in printed


@pytest.mark.parametrize("command", ["check", "show", "estimate", "freeze"])
def test_no_such_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", command, str(tmp_path / "absent.yaml")]) == 11
    assert "fivefold study new" in capsys.readouterr().err


# ---- freeze, sign, verify -------------------------------------------------------------------------------------------
def test_the_digest_is_that_of_the_frozen_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "freeze", str(folder / "study.yaml"), "--json"]) == 0
    frozen = folder / "study.frozen.json"
    digest = out_json(capsys)["digest"]
    assert digest == hashlib.sha256(frozen.read_bytes()).hexdigest()
    assert run(["study", "show", str(frozen), "--json"]) == 0
    assert out_json(capsys)["digest"] == digest
    assert run(["study", "freeze", str(folder / "study.yaml")]) == 0, "freezing the same again is no change"


def test_a_change_after_freezing_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, key = str(folder / "study.yaml"), str(folder / "lead.key")
    assert run(["study", "freeze", path]) == 0
    before = (folder / "study.frozen.json").read_bytes()
    edit(folder, "  minimum_persons: 5 ", "  minimum_persons: 6 ")
    assert run(["study", "sign", path, "--key", key]) == 13
    assert run(["study", "freeze", path]) == 13
    assert "--replace" in capsys.readouterr().err
    assert (folder / "study.frozen.json").read_bytes() == before
    assert run(["study", "freeze", path, "--replace"]) == 0
    assert run(["study", "sign", path, "--key", key]) == 0


def test_a_change_of_the_dictionary_counts(folder: Path) -> None:
    path = str(folder / "study.yaml")
    assert run(["study", "freeze", path]) == 0
    dictionary = folder / "dictionary.yaml"
    dictionary.write_text(dictionary.read_text(encoding="utf-8").replace("maximum: 120", "maximum: 119"), encoding="utf-8")
    assert run(["study", "sign", path, "--key", str(folder / "lead.key")]) == 13


def test_sign_and_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "sign", str(folder / "study.yaml"), "--key", str(folder / "lead.key"), "--json"]) == 0
    digest = out_json(capsys)["digest"]
    signed = folder / "study.signed.json"
    assert load_signed(signed).digest == digest
    fingerprint = keys.fingerprint(keys.public_of(bytes([1]) * 32))
    assert run(["study", "verify", str(signed), "--lead", fingerprint]) == 0
    printed = capsys.readouterr().out
    assert digest in printed
    assert fingerprint in printed
    assert run(["study", "verify", str(signed), "--lead", "0000 " + fingerprint[5:]]) == 42
    assert "another key than the one you know" in capsys.readouterr().err
    assert run(["study", "show", str(signed)]) == 0


def test_only_the_leads_key_signs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.write_key(folder / "other.key", keys.new_key())
    assert run(["study", "sign", str(folder / "study.yaml"), "--key", str(folder / "other.key")]) == 15
    assert "not that of the lead" in capsys.readouterr().err
    assert not (folder / "study.signed.json").exists()


def test_verify_finds_a_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["study", "sign", str(folder / "study.yaml"), "--key", str(folder / "lead.key")])
    signed = folder / "study.signed.json"
    signed.write_bytes(signed.read_bytes().replace(b'"minimum_persons":5', b'"minimum_persons":3'))
    assert run(["study", "verify", str(signed)]) == 13
    assert "changed after it was signed" in capsys.readouterr().err
    assert run(["study", "verify", str(folder / "study.yaml")]) == 12
    assert f"Name the signed file: {signed}" in capsys.readouterr().err
    assert run(["study", "verify", str(folder / "absent.json")]) == 11


def test_a_study_of_any_name_finds_its_signed_file(folder: Path) -> None:
    (folder / "study.yaml").rename(folder / "lung.yaml")
    with pytest.raises(StudyNotFound, match=r"no signed study at .*lung\.signed\.json"):
        signed_file(folder / "lung.yaml")
    assert run(["study", "sign", str(folder / "lung.yaml"), "--key", str(folder / "lead.key")]) == 0
    assert signed_file(folder / "lung.yaml") == folder / "lung.signed.json"


# ---- vary -----------------------------------------------------------------------------------------------------------
def test_vary_inside_and_outside_the_envelope(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = str(folder / "lead.key")
    run(["study", "sign", str(folder / "study.yaml"), "--key", key])
    signed = folder / "study.signed.json"
    base = ["study", "vary", str(signed), "--analysis", "description", "--key", key]
    assert run([*base, "--name", "fewer", "--variables", "age,outcome"]) == 0
    variation = load_variation(folder / "study.fewer.variation.json", load_signed(signed).study)
    assert variation.analysis.variables == ("age", "outcome")
    assert variation.varies == "description"
    capsys.readouterr()
    assert run([*base, "--name", "more", "--variables", "age,sex"]) == 31
    assert "'sex' is not in the study's envelope" in capsys.readouterr().err
    assert run([*base, "--name", "other", "--method", "glm", "--formula", "outcome ~ age"]) == 31
    assert run([*base, "--name", "a/b", "--variables", "age"]) == 31  # the name becomes a file's
    assert sorted(p.name for p in folder.glob("*.variation.json")) == ["study.fewer.variation.json"]


# ---- the disk -------------------------------------------------------------------------------------------------------
def test_a_full_disk_leaves_the_old_file_whole(folder: Path) -> None:
    run(["study", "freeze", str(folder / "study.yaml")])
    before = (folder / "study.frozen.json").read_bytes()
    edit(folder, "  minimum_persons: 5 ", "  minimum_persons: 6 ")

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = subprocess.run(
        [sys.executable, "-B", "-m", "fivefold.cli.main", "study", "freeze", str(folder / "study.yaml"), "--replace"],
        capture_output=True, text=True, check=False, preexec_fn=small, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 54, done.stderr
    assert "the disk is full" in done.stderr
    assert (folder / "study.frozen.json").read_bytes() == before
    assert not list(folder.glob(".study*"))


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "schema"]) == 0
    assert out_json(capsys)["title"] == "Fivefold study file"
    assert run(["study", "schema", "dictionary"]) == 0
    assert "variables" in out_json(capsys)["properties"]
