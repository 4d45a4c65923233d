"""Processes that spend: `budget_worker.py STATE EPSILON PROCESSES RELEASES` forks so many, which share the releases out.

Each says `begin N PID` before a reservation and `charged N PID`, `again N PID` or `spent N PID` after it, each line at once.
One that is killed is begun anew from its first release, and `died FIRST PID` says so.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

from fivefold.errors import BudgetSpent
from fivefold.governance.policy import Policy
from fivefold.privacy.dp.events import Event
from fivefold.records.audit import AuditLog
from fivefold.site.budget import Release, reserve

EVENT = Event("discrete_gaussian", 40.0)


def policy(epsilon: float | None, **more: object) -> Policy:
    who = {"name": "C", "key": "0" * 64, "from": date(2026, 1, 1), "until": date(2027, 1, 1)}
    values = {"version": 1, "site": "a", "asset": "registry", "expires": date(2027, 1, 1), "custodians": [who]}
    return Policy.model_validate(values | ({"budget": {"epsilon": epsilon, "delta": 1e-6}} if epsilon else {}) | more)


def release(number: int) -> Release:
    return Release(
        "d" * 64, "run", number, f"{number:064x}", ("a", "b", "c"), 40.0, title=f"Study {number % 3}"
    )  # one study, many rounds


def spend(state: Path, epsilon: float, first: int, step: int, last: int) -> None:
    site = policy(epsilon)
    with AuditLog(state / "audit.jsonl", b"\1" * 32, "a") as log:
        for number in range(first, last, step):
            say("begin", number, os.getpid())
            try:
                receipt = reserve(state, site, release(number), (EVENT,), log)
            except BudgetSpent:
                say("spent", number, os.getpid())
            else:
                say("charged" if receipt.charged else "again", number, os.getpid())


def say(word: str, number: int, pid: int) -> None:
    os.write(1, f"{word} {number} {pid}\n".encode())


def main(state: Path, epsilon: float, processes: int, releases: int) -> int:
    running: dict[int, int] = {}

    def start(first: int) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                spend(state, epsilon, first, processes, releases)
                code = 0
            finally:
                os._exit(code)
        running[pid] = first

    for first in range(processes):
        start(first)
    while running:
        pid, status = os.wait()
        first = running.pop(pid)
        if os.WIFSIGNALED(status):
            say("died", first, pid)
            start(first)
        elif status:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
