"""A run that is killed at any moment and resumed ends in the very bytes of a run that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from examples import prepare
from fivefold.auth.keys import public_of, read_key
from fivefold.records.audit import verify
from fivefold.results.write import comparable
from tests.journeys.consortium import SITES, alone, approve_anew, command, fivefold, sign_anew

KILLS = int(os.environ.get("FIVEFOLD_KILLS", "3"))  # twenty take minutes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast consortium with a study of the regression alone, approved and frozen anew."""
    out = tmp_path_factory.mktemp("kill") / "breast"
    prepare.prepare("breast", out)
    sign_anew(out, alone(out, "malignancy"))
    approve_anew(out)
    return out


def outcome(folder: Path) -> tuple[object, dict[str, bytes]]:
    return comparable(folder), {f.name: f.read_bytes() for f in sorted((folder / "tables").glob("*.csv"))}


def test_killed_anywhere_and_resumed_is_the_uninterrupted_run(prepared: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(prepared, tmp_path / "whole")
    start = time.monotonic()
    assert fivefold("run", whole / "study.yaml", "--out", whole / "run", "--quiet").returncode == 0
    duration = time.monotonic() - start
    expected = outcome(whole / "run")
    assert expected[1]
    chance = random.Random(20261124)
    killed = 0
    for number in range(KILLS):
        out = shutil.copytree(prepared, tmp_path / f"kill{number}")
        folder = out / "run"
        process = subprocess.Popen(
            command("run", out / "study.yaml", "--out", folder, "--quiet"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=duration * (number + chance.random()) / KILLS)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.wait()
        how = ("--resume", folder) if (folder / ".lock").exists() else ("--out", folder)
        again = fivefold("run", out / "study.yaml", *how, "--quiet")
        assert again.returncode == 0, (number, again.stderr)
        assert outcome(folder) == expected, number
        verify(folder / "audit.jsonl", public_of(read_key(folder / "coordinator.key")))
        for site in SITES:
            verify(out / "sites" / site / "state" / "audit.jsonl")
        shutil.rmtree(out)
    assert killed > KILLS // 2
