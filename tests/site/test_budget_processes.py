"""Eight processes spend one budget, and are killed while they do: never above the cap, nothing lost, nothing charged twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from fivefold.privacy.dp.events import epsilon_of
from fivefold.records.audit import verify
from fivefold.site.budget import admits, curve_of
from fivefold.site.budget_book import compare, last_witnessed, load, place

WORKER = Path(__file__).with_name("budget_worker.py")
PROCESSES, RELEASES, SHOTS, CAP = 8, 200, 40, 1.5


def kill_within(pid: int, random: Random) -> None:
    """SIGKILL at some moment of the reservation that has just begun."""
    moment = time.perf_counter() + random.uniform(0, 0.012)
    while time.perf_counter() < moment:
        pass
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_eight_processes_spend_one_budget_and_are_killed(tmp_path: Path) -> None:
    random = Random(5)
    said: dict[str, list[int]] = {"begin": [], "charged": [], "again": [], "spent": [], "died": []}
    command = [sys.executable, str(WORKER), str(tmp_path), str(CAP), str(PROCESSES), str(RELEASES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shots = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as processes:
        assert processes.stdout is not None
        for line in processes.stdout:
            word, number, pid = line.decode().split()
            said[word].append(int(number))
            if word == "begin" and shots < SHOTS and random.random() < 0.2:
                shots += 1
                kill_within(int(pid), random)
    assert processes.returncode == 0
    assert len(said["died"]) >= SHOTS // 2
    assert set(said["begin"]) == set(range(RELEASES))

    book = load(place(tmp_path, "registry"), "registry")
    rounds = [entry.round for entry in book.entries]
    assert len(set(rounds)) == len(rounds), "a release was charged twice"
    assert {*said["charged"], *said["again"]} <= set(rounds), "a reservation that returned is not in the ledger"
    total = curve_of(book.entries)
    assert admits(CAP, 1e-6, total)
    assert epsilon_of(total, 1e-6) <= CAP
    assert not admits(CAP, 1e-6, curve_of((*book.entries, book.entries[0]))), "it was refused before the cap was reached"
    assert set(said["spent"]) >= set(range(RELEASES)) - set(rounds)
    assert set(said["spent"]).isdisjoint(rounds)
    compare(book, last_witnessed(tmp_path / "audit.jsonl", "registry"))
    assert verify(tmp_path / "audit.jsonl").events["budget"] >= len(set(said["charged"]))
