"""The cost of rounds in which nothing is trained: 100 clients, 10,000 parameters, against Flower's simulation engine.

python -m benchmarks.rounds
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np

from benchmarks.measure import Figures, report
from fivefold.engines.simulated_clients import ArrayClients
from fivefold.engines.simulation import simulate
from fivefold.plugins import METHODS
from fivefold.study.definition import Agreements, Analysis, Cohort, Envelope, Lead, Outputs, Privacy, Study
from fivefold.study.dictionary import Dictionary

CLIENTS, WIDTH = 100, 10_000
TARGETS = {"ratio_to_flower": ">= 100"}


def study_of(dictionary: Dictionary, analysis: Analysis) -> Study:
    """A study with no site and no more than a simulation needs."""
    return Study(
        "Benchmark", "", Lead("", "", ""), (), dictionary, "", Cohort(), dict.fromkeys(dictionary.variables, ""), (),
        (analysis,), Envelope(), Privacy(), Outputs(), Agreements("", "", "2035-12-31"),
    )  # fmt: skip


def main() -> None:
    METHODS["nothing"] = "benchmarks.nothing"
    print(f"{CLIENTS} clients, {WIDTH:,} parameters, training that does nothing; client updates a second.\n")
    plain, secure = ours(100, secure=False), ours(2, secure=True)
    theirs = flower()
    print(f"this, plain sums: {plain:,.0f}; with the secure sum, all its parties in this process: {secure:,.0f}")
    print("Flower's simulation (Ray): " + ("not installed" if theirs is None else f"{theirs:,.0f}") + "\n")
    figures: Figures = {
        "ratio_to_flower": plain / theirs if theirs else None,
        "updates_per_s": plain,
        "secure_updates_per_s": secure,
        "flower_updates_per_s": theirs,
        "secure_ratio_to_flower": secure / theirs if theirs else None,
    }
    report("rounds", figures, TARGETS)


def ours(rounds: int, *, secure: bool) -> float:
    analysis = Analysis("nothing", "nothing", options={"rounds": rounds, "width": WIDTH})
    dictionary = Dictionary("none", "1", {})
    clients = ArrayClients(np.zeros((CLIENTS, 1, 0)), np.zeros((CLIENTS, 1)), dictionary, (), "y")
    return max(
        simulate(study_of(dictionary, analysis), clients, CLIENTS, secure=secure).answers_per_second
        for _ in range(1 if secure else 3)
    )


def flower() -> float | None:
    if any(importlib.util.find_spec(name) is None for name in ("flwr", "ray")):
        return None
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_LOG_LEVEL": "ERROR", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "benchmarks.peer_flower_simulation", str(CLIENTS), str(WIDTH), "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


if __name__ == "__main__":
    main()
