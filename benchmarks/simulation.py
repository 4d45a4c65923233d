"""Simulators on one workload: 10,000 users, 100 a round, 20 samples each, softmax regression of 784 features on 10 classes.

    python -m benchmarks.simulation

Beside a hand-written NumPy loop, the peers run in the same minutes: Apple's pfl and NVIDIA FLARE in environments of their own
(`sh tools/make_env.sh pfl`, `… flare`), Flower's simulation engine in this one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Figures, report
from benchmarks.rounds import study_of
from fivefold.data.partitions import parse
from fivefold.engines.simulated_clients import ArrayClients, made_up_rows
from fivefold.engines.simulation import simulate
from fivefold.privacy.secagg import keys
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Dictionary, Variable

USERS, COHORT, ROWS, FEATURES, CLASSES, RATE = 10_000, 100, 20, 784, 10, 0.1
ROUNDS = {1: 40, 5: 15}
TARGETS = {"share_of_loop_1_step": ">= 0.7", "share_of_loop_5_steps": ">= 0.7", "ratio_to_best_peer": ">= 10"}


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((USERS, ROWS, FEATURES), dtype=np.float32)
    y = rng.integers(0, CLASSES, (USERS, ROWS))
    figures: Figures = {}
    print(f"{USERS:,} users, {COHORT} a round, {ROWS} samples each, {FEATURES} × {CLASSES} softmax; client updates a second.\n")
    print("local steps      this   NumPy loop   share")
    for steps in ROUNDS:
        best = {"this": 0.0, "loop": 0.0}
        for _ in range(3):
            best["this"] = max(best["this"], ours(x, y, steps))
            best["loop"] = max(best["loop"], loop(x, y, steps))
        word = f"{steps}_step{'s' if steps > 1 else ''}"
        figures |= {f"share_of_loop_{word}": best["this"] / best["loop"], f"updates_per_s_{word}": best["this"],
                    f"loop_per_s_{word}": best["loop"]}  # fmt: skip
        print(f"{steps:11d} {best['this']:9,.0f} {best['loop']:12,.0f} {best['this'] / best['loop']:7.2f}")
    _protected(x, y, figures)
    _peers(x, y, figures)
    _sizes(figures)
    report("simulation", figures, TARGETS)


def problem() -> Dictionary:
    """One category of 785 levels has 784 columns, which the arrays fill with numbers: a formula has 500 terms at most."""
    pixel = Variable("pixel", "pixel", "category", codes={str(i): str(i) for i in range(FEATURES + 1)})
    kind = Variable("kind", "kind", "category", codes={str(i): str(i) for i in range(CLASSES)})
    return Dictionary("digits", "1", {"pixel": pixel, "kind": kind})


def analysis(steps: int, rounds: int) -> Analysis:
    options = {"rounds": rounds, "local_epochs": steps, "learning_rate": RATE, "scaling": "range", "evaluate_every": 0}
    return Analysis("training", "fedavg", "kind ~ pixel", options={**options, "weighting": "equal"})


def ours(x: Any, y: Any, steps: int, rounds: int = 0, *, secure: bool = False) -> float:
    """From the first update's question on; the question that counts is not one."""
    dictionary = problem()
    at: list[float] = []
    simulate(
        study_of(dictionary, analysis(steps, rounds or ROUNDS[steps])), ArrayClients(x, y, dictionary, ["pixel"], "kind"),
        COHORT, secure=secure, tell=lambda _: at.append(time.perf_counter()),
    )  # fmt: skip
    return COHORT * (len(at) - 1) / (at[-1] - at[0])


def loop(x: Any, y: Any, steps: int) -> float:
    """What a careful person writes by hand: user after user, in place."""
    rng, rows = np.random.default_rng(1), np.arange(ROWS)
    shared, constant = np.zeros((FEATURES, CLASSES), np.float32), np.zeros(CLASSES, np.float32)
    began = time.perf_counter()
    for _ in range(ROUNDS[steps]):
        total, total_constant = np.zeros_like(shared), np.zeros_like(constant)
        for user in rng.choice(USERS, COHORT, replace=False):
            a, b = x[user], y[user]
            w, c = (shared, constant) if steps == 1 else (shared.copy(), constant.copy())
            for _ in range(steps):
                z = a @ w + c
                z -= z.max(1, keepdims=True)
                np.exp(z, out=z)
                z /= z.sum(1, keepdims=True)
                z[rows, b] -= 1
                z *= RATE / ROWS
                if steps == 1:
                    total -= a.T @ z
                    total_constant -= z.sum(0)
                else:
                    w -= a.T @ z
                    c -= z.sum(0)
            if steps > 1:
                total += w - shared
                total_constant += c - constant
        shared += total / COHORT
        constant += total_constant / COHORT
    return COHORT * ROUNDS[steps] / (time.perf_counter() - began)


def _protected(x: Any, y: Any, figures: Figures) -> None:
    """With the secure sum among the roster, all its parties in this process."""
    agreeing, plain = [0.0], keys.agree_all

    def timed(private: bytes, peers: Any) -> list[bytes]:
        began = time.perf_counter()
        agreed = plain(private, peers)
        agreeing[0] += time.perf_counter() - began
        return agreed

    keys.agree_all = timed
    try:
        began = time.perf_counter()
        rate = ours(x, y, 1, 1, secure=True)
        share = agreeing[0] / (time.perf_counter() - began)
    finally:
        keys.agree_all = plain
    figures |= {"secure_updates_per_s": rate, "secure_share_of_key_agreements": share}
    print(f"\nWith the secure sum among the {COHORT}, every party here: {rate:,.0f}; {share:.0%} is key agreements.")


def _peers(x: Any, y: Any, figures: Figures) -> None:
    """Each peer in an environment of its own; one that is not there is said, and leaves its figure empty."""
    root, here = Path(__file__).parents[1], Path(__file__).parent
    with tempfile.TemporaryDirectory() as data:
        np.save(f"{data}/x.npy", x)
        np.save(f"{data}/y.npy", y)
        flare = (root / ".venv-flare/bin/python", here / "peer_flare_simulation.py", data)
        peers = {
            "pfl": (root / ".venv-pfl/bin/python", here / "peer_pfl.py"),
            "flower": (sys.executable, here / "peer_flower_softmax.py", data),
            "flare": (*flare, "default"),
            "flare_tuned": (*flare, "0.1"),
        }
        print("\nPeers, one local step, client updates a second:")
        rates = {name: _rate(name, [str(part) for part in command]) for name, command in peers.items()}
    figures |= {f"{name}_updates_per_s": rate for name, rate in rates.items()}
    measured, mine = [rate for rate in rates.values() if rate is not None], figures["updates_per_s_1_step"]
    assert isinstance(mine, float)
    figures["ratio_to_best_peer"] = mine / max(measured) if len(measured) == len(peers) else None


def _rate(name: str, command: list[str]) -> float | None:
    if not Path(command[0]).exists():
        print(f"  {name:12} not measured: sh tools/make_env.sh {name.split('_')[0]}")
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"  {name:12} failed: {done.stderr.splitlines()[-1:]}")
        return None
    rate = float(done.stdout.splitlines()[-1])
    print(f"  {name:12} {rate:9,.0f}")
    return rate


def _sizes(figures: Figures) -> None:
    """The cost of clients that are not in the roster: made-up rows, the same roster. Peak memory is what Python allocates."""
    import tracemalloc

    dictionary = problem()
    print(f"\nClients of made-up rows, {COHORT} a round, 3 rounds:\n\n  clients   s a round   peak, MB")
    for clients in (10**3, 10**4, 10**5, 10**6):
        source = made_up_rows(dictionary, "kind", parse("dirichlet:0.3"), clients=clients, rows=ROWS, seed=0)
        tracemalloc.start()
        done = simulate(study_of(dictionary, analysis(1, 3)), source, COHORT)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        figures |= {f"seconds_a_round_{clients}_clients": done.seconds / done.rounds, f"peak_mb_{clients}_clients": peak}
        print(f"{clients:9,d} {done.seconds / done.rounds:11.2f} {peak:10.0f}")
    print()


if __name__ == "__main__":
    main()
