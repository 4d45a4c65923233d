"""Plain FedAvg as Flower's documentation writes it: its own strategy, SuperNodes and SuperExec, on a running SuperLink.

Nothing is masked, no approval asked. The client trains nothing: every second that a round takes is the platform's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives import serialization

from fivefold.engines.flower.certificates import make_connection_key
from fivefold.engines.flower.dialect import dialect
from fivefold.engines.flower.superlink import Coordinator, environment
from fivefold.engines.flower.superlink import admit as let_in

PYPROJECT = """\
[project]
name = "plain"
version = "1.0.0"
description = "Plain FedAvg"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "peer"

[tool.flwr.app.components]
serverapp = "plain:server"
clientapp = "plain:client"

[tool.flwr.app.config]
"""
APP = """\
import json, time
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client, server = ClientApp(), ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()
    told = MetricRecord({{"num-examples": 100, "loss": 1.0}})
    return Message(content=RecordDict({{"arrays": ArrayRecord(weights), "metrics": told}}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    times = [time.time()]

    def noted(round, arrays):
        if round:
            times.append(time.time())
            open({path!r}, "w").write(json.dumps(times))
        return None

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes={nodes}, min_available_nodes={nodes})
    strategy.start(grid, ArrayRecord([np.zeros({width})]), num_rounds={rounds}, evaluate_fn=noted)
"""


@contextmanager
def supernodes(coordinator: Coordinator, folder: Path, count: int, port: Callable[[], int]) -> Iterator[None]:
    """Flower's own SuperNodes, admitted with keys of their own, and the SuperExec that starts a run's server side."""
    started = []
    tls = ("--root-certificates", str(coordinator.authority))
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "peer.log").open("ab")
    try:
        for number in range(count):
            keys = folder / f"keys-{number}"
            keys.mkdir(parents=True)
            public = make_connection_key(keys).encode()
            _openssh(keys / "connection.key")
            let_in(coordinator, f"peer-{number}", public)
            words = ("--superlink", coordinator.address(), "--port", str(port()), "--node-config", f"partition-id={number}")
            own = ("--auth-supernode-private-key", str(keys / "connection.key"))
            started.append(_started("flower-supernode", (*words, *tls, *own), log, folder / "home"))
        where = ("--runtime-api-address", coordinator.address(), *tls)
        secret = ("--superexec-auth-secret-file", str(coordinator.path / "attach.secret"))
        started.append(_started("flower-superexec", (*where, *secret), log, folder / "home"))
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)
        log.close()


def fedavg(coordinator: Coordinator, folder: Path, *, nodes: int, width: int, rounds: int) -> list[float]:
    """Seconds of each round."""
    from flwr.cli.build import build_fab_from_disk
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    app, path = folder / "app", folder / "times.json"
    app.mkdir()
    (app / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    (app / "plain.py").write_text(APP.format(path=str(path), nodes=nodes, width=width, rounds=rounds), "utf-8")
    with dialect().control(coordinator.addresses(), coordinator.authority.read_bytes()) as client:
        client.StartRun(StartRunRequest(fab=Fab(content=build_fab_from_disk(app))))
    end = time.monotonic() + 120 + 30 * rounds
    while time.monotonic() < end:
        times = json.loads(path.read_text("utf-8") or "[]") if path.exists() else []
        if len(times) == rounds + 1:
            return [after - before for before, after in pairwise(times)]
        time.sleep(0.5)
    raise SystemExit(f"plain FedAvg did not end; what Flower said is in {folder / 'peer.log'}")


def _openssh(path: Path) -> None:
    """Write a private key anew in the form that Flower's own SuperNode reads."""
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _started(name: str, words: tuple[str, ...], log: BinaryIO, home: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / name), *words]
    path = f"{Path(sys.executable).parent}:{environment().get('PATH', '')}"
    own = {**environment(), "PATH": path, "FLWR_HOME": str(home), "FLWR_LOG_LEVEL": "INFO"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=own)
