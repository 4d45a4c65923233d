"""Ctrl-C leaves a run that can be resumed; another seed is another study, which lead and custodians agree to."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.cli.main import run as fivefold_here
from fivefold.records.audit import entries, verify
from fivefold.results.write import comparable
from tests.journeys.consortium import SITES, command, fivefold


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interrupt") / "breast"
    prepare.prepare("breast", out)
    return out


@pytest.fixture
def breast(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "breast")


def tables(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted((folder / "tables").glob("*.csv"))}


def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_result(prepared: Path, breast: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(prepared, tmp_path / "whole")
    assert fivefold("run", whole / "study.yaml", "--out", whole / "run", "--quiet").returncode == 0

    study, folder = breast / "study.yaml", breast / "run"
    with subprocess.Popen(
        command("run", study, "--out", folder, "--sites", breast / "sites"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell in the background ignores it
    ) as process:
        assert process.stderr is not None
        rounds = (line for line in process.stderr if line.startswith("round"))
        for _ in range(4):
            next(rounds)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 52, said
    assert "interrupted; nothing is lost" in said
    assert "Traceback" not in said
    assert f"fivefold run {study} --sites {breast / 'sites'} --resume {folder}" in said.replace("\n", "")
    assert not (folder / "result.json").exists()

    again = fivefold("run", study, "--resume", folder)
    assert again.returncode == 0, again.stderr
    first = next(line for line in again.stderr.splitlines() if line.startswith("round"))
    assert int(first.split()[1]) > 4, "answered rounds are replayed, not asked again"
    assert comparable(folder) == comparable(whole / "run")
    assert tables(folder) == tables(whole / "run")
    verify(folder / "audit.jsonl", public_of(read_key(folder / "coordinator.key")))
    for site in SITES:
        verify(breast / "sites" / site / "state" / "audit.jsonl")


def says(capsys: pytest.CaptureFixture[str], code: int, sentence: str, *words: object) -> None:
    capsys.readouterr()
    assert fivefold_here([str(w) for w in words]) == code
    assert sentence in capsys.readouterr().err.replace("\n", " ")


def test_another_seed_is_signed_and_approved_before_it_runs(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, signed, twin = breast / "study.yaml", breast / "study.signed.json", breast / "study.seed-7.signed.json"
    says(capsys, 11, "nobody has signed it with 7", "run", study, "--seed", 7)
    says(capsys, 12, "is not between 0", "run", study, "--seed", -1)
    says(capsys, 15, "not that of the lead", "study", "reseed", signed, "--seed", 7, "--key",
         breast / "sites" / "elm" / "keys" / "custodian.key")  # fmt: skip
    assert fivefold_here(["study", "reseed", str(signed), "--seed", "7", "--key", str(breast / "lead.key")]) == 0

    says(capsys, 37, "no_approval", "run", study, "--seed", 7, "--out", breast / "refused", "--quiet")
    refusals = [e for e in entries(breast / "refused" / "audit.jsonl") if e.event == "refusal"]
    assert {e.facts["rule"] for e in refusals} == {"no_approval"}

    for site in SITES:
        assert fivefold_here(["site", "approve", str(twin), "--site", str(breast / "sites" / site), "--yes"]) == 0
    assert fivefold_here(["run", str(study), "--seed", "7", "--out", str(breast / "seven"), "--quiet"]) == 0
    seed = next(line for line in signed.read_text("utf-8").split(",") if '"seed"' in line)
    own = seed.split(":")[1].split("}")[0]
    assert fivefold_here(["run", str(study), "--seed", own, "--out", str(breast / "own"), "--quiet"]) == 0
    seven, mine = comparable(breast / "seven"), comparable(breast / "own")
    assert (seven["study"]["seed"], mine["study"]["seed"]) == (7, int(own))
    assert seven["study"]["digest"] != mine["study"]["digest"]
    assert seven["analyses"] == mine["analyses"], "no method of this study draws at random"


def test_a_twin_that_changes_more_than_the_seed_is_not_taken(breast: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = breast / "study.yaml"
    shutil.copy(breast / "study.signed.json", breast / "study.seed-7.signed.json")
    says(capsys, 13, "more than its seed", "run", study, "--seed", 7)
