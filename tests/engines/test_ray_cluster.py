"""A Ray cluster of this machine: shares of the roster on workers, one partial sum back, the numbers of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fivefold.cli.main import run

ROOT = Path(__file__).parents[2]


def test_workers_give_the_numbers_of_one_process_and_one_message_a_question_and_one_more_changes_nothing() -> None:
    command = [sys.executable, "-m", "tests.engines.ray_worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["apart"] < 1e-12
    assert told["messages"] == told["rounds"] == 4
    assert told["shares"] == [2, 4], "a worker that was added takes its part"
    assert "keeps something at each client" in told["refused"]


def test_real_sites_are_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(tmp_path / "study.yaml"), "--engine", "ray"]) == 80
    said = capsys.readouterr().err
    assert "one domain of trust" in said
    assert "fivefold simulate" in said
