"""What a round costs between machines: secure FedAvg over a real SuperLink against Flower's plain FedAvg on the same SuperLink.

Both: TLS, node authentication, five sites, all processes on this machine, so that they share its cores. The first is the breast
consortium's training with the whole of Fivefold around it (approval, replay, gate, secure sum, audit logs on disk), each round
one secure sum: three trips where the coordinator is held to try anything, two where it is held to keep to the protocol. The
second protects nothing, and its clients train nothing.

FIVEFOLD_ROUNDS and FIVEFOLD_PEER_ROUNDS set the numbers of rounds.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import report
from benchmarks.peer_fedavg import fedavg, supernodes
from examples import prepare
from fivefold.coordinator.session import run
from fivefold.engines.flower.grid import flower_engine
from fivefold.engines.flower.superlink import Coordinator, admit, environment, make, running
from fivefold.engines.local import local_engine
from fivefold.study.digest import SignedStudy, load_signed

ROUNDS = int(os.environ.get("FIVEFOLD_ROUNDS", "50"))
PEER_ROUNDS = int(os.environ.get("FIVEFOLD_PEER_ROUNDS", "6"))
SITES = ("alder", "birch", "cedar", "elm", "fir")
WIDTH = 5
SETTLE, IDLE = 15.0, 15.0
"""Seconds until everybody has become idle, and that are then measured."""

Processes = Mapping[str, list[int]]


def main() -> None:
    print(__doc__)
    with tempfile.TemporaryDirectory(prefix="fivefold-deployed-") as name:
        out = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):
            studies = consortium(out / "breast")
        coordinator = make(out / "coordinator", ["localhost", "127.0.0.1"])
        for site in SITES:
            admit(coordinator, site, (out / "breast" / "sites" / site / "keys" / "connection.pub").read_bytes())
        with running(coordinator):
            superlink = _children(os.getpid())
            print(f"plain FedAvg, Flower's own SuperNodes, {PEER_ROUNDS} rounds ...", flush=True)
            with supernodes(coordinator, out / "peer", len(SITES), _free):
                peer = fedavg(coordinator, out / "peer", nodes=len(SITES), width=WIDTH, rounds=PEER_ROUNDS)
                peer_idle = idle(superlink)
            with sites(coordinator, out / "breast") as processes:
                everybody = {"superlink": superlink, "coordinator": [os.getpid()], **processes}
                print(f"secure FedAvg, {ROUNDS} rounds, three trips ...", flush=True)
                active, shares = deployed(studies["active"], coordinator, out / "active", everybody)
                print(f"secure FedAvg, {ROUNDS} rounds, two trips ...", flush=True)
                curious, _ = deployed(studies["curious"], coordinator, out / "curious", everybody)
                own_idle = idle(superlink)
            here = in_process(studies["active"], out / "here", out / "breast" / "sites")

    plain = statistics.median(peer)
    print("\nwhere the processor's milliseconds of a round go (three trips):")
    for who, ms in shares.items():
        print(f"  {who:24} {ms:7.0f}")
    print(
        f"  {'the same in one process':24} {1e3 * statistics.median(here):7.0f}   (arithmetic, signatures, logs; no connection)"
    )
    print(f"  {'of a round in all':24} {1e3 * statistics.median(active):7.0f}   wall time\n")
    report(
        "deployed",
        {
            "ratio_to_plain_flower": statistics.median(active) / plain,
            "ratio_to_plain_flower_curious": statistics.median(curious) / plain,
            "idle_load_to_supernodes": own_idle / max(peer_idle, 1e-6),
            "round_s_median": statistics.median(active),
            "round_s_p95": _p95(active),
            "curious_round_s_median": statistics.median(curious),
            "curious_round_s_p95": _p95(curious),
            "plain_flower_round_s_median": plain,
            "plain_flower_round_s_p95": _p95(peer),
            "rounds": len(active),
            "idle_ms_per_s": 1e3 * own_idle,
            "idle_supernodes_ms_per_s": 1e3 * peer_idle,
        },
        {"ratio_to_plain_flower": "< 0.2", "ratio_to_plain_flower_curious": "< 0.2", "idle_load_to_supernodes": "< 1.1"},
    )


def consortium(out: Path) -> dict[str, SignedStudy]:
    """The breast consortium with two studies of the same training; all sites approve both."""
    prepare.prepare("breast", out, "training.yaml")
    text = (out / "study.yaml").read_text("utf-8")
    first, last = text.index("  - name: adam"), text.index("privacy:")
    text = (
        text[:first]
        .rstrip()
        .replace("rounds: 9", f"rounds: {ROUNDS}")
        .replace("evaluate_every: 3", f"evaluate_every: {ROUNDS}")
    )
    rest = (out / "study.yaml").read_text("utf-8")[last:]
    for site in SITES:
        policy = out / "sites" / site / "site.yaml"
        policy.write_text(policy.read_text("utf-8").replace("version: 2", "version: 3") + "adversary: curious\n", "utf-8")
        prepare.fivefold("site", "sign-policy", "--site", policy.parent)
    found = {}
    for mode in ("active", "curious"):
        folder = out / mode
        folder.mkdir()
        (folder / "dictionary.yaml").write_bytes((out / "dictionary.yaml").read_bytes())
        (folder / "study.yaml").write_text(f"{text}\n\n{rest.replace('adversary: active', f'adversary: {mode}')}", "utf-8")
        prepare.fivefold("study", "freeze", folder / "study.yaml")
        prepare.fivefold("study", "sign", folder / "study.yaml", "--key", out / "lead.key")
        signed = folder / "study.signed.json"
        for site in SITES:
            prepare.fivefold("site", "approve", signed, "--site", out / "sites" / site, "--yes")
            prepare.fivefold("site", "prepare", signed, "--site", out / "sites" / site)
        found[mode] = load_signed(signed)
    return found


@contextmanager
def sites(coordinator: Coordinator, consortium: Path) -> Iterator[dict[str, list[int]]]:
    """The five site processes, and their process ids: those with the connection, and those that answer."""
    with ExitStack() as stack:
        log = stack.enter_context((consortium / "sites.log").open("ab"))
        started = []
        for site in SITES:
            command = [sys.executable, "-m", "fivefold.cli.main", "site", "start", "--site", str(consortium / "sites" / site)]
            command += ["--superlink", coordinator.address(), "--root-certificates", str(coordinator.authority)]
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment()))
        try:
            while (consortium / "sites.log").read_text("utf-8").count("is connected") < len(SITES):
                time.sleep(0.2)
            outer = [p.pid for p in started]
            yield {"sites, connection": outer, "sites, answering": [c for p in outer for c in _children(p)]}
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(30)


def deployed(
    study: SignedStudy, coordinator: Coordinator, folder: Path, processes: Processes
) -> tuple[list[float], dict[str, float]]:
    """Seconds of each round, and the milliseconds of processor time that each party spends on one."""
    keys = {s.name: bytes.fromhex(s.public_key) for s in study.study.sites}
    times: list[float] = []
    with contextlib.closing(flower_engine(coordinator.path, keys, deadline=120.0)) as engine:
        before = {who: sum(map(_processor, pids)) for who, pids in processes.items()}
        run(study, engine, folder, tell=lambda _: times.append(time.perf_counter()), engine_name="flower", resume=False)
        after = {who: sum(map(_processor, pids)) for who, pids in processes.items()}
    return _between(times), {who: 1e3 * (after[who] - before[who]) / len(times) for who in processes}


def in_process(study: SignedStudy, folder: Path, at: Path) -> list[float]:
    """Seconds of each round where all sites are in one process."""
    times: list[float] = []
    with contextlib.closing(local_engine(at, SITES)) as engine:
        run(study, engine, folder, tell=lambda _: times.append(time.perf_counter()), engine_name="local", resume=False)
    return _between(times)


def idle(superlink: list[int]) -> float:
    """Seconds of the SuperLink's processor time for each second in which nothing happens."""
    time.sleep(SETTLE)
    before = sum(map(_processor, superlink))
    time.sleep(IDLE)
    return (sum(map(_processor, superlink)) - before) / IDLE


def _between(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    parts = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text("ascii").split()]
    return found


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
