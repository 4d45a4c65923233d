"""A coordinator's SuperLink with TLS and node authentication, and sites as processes of their own, on loopback."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fivefold.engines.flower.grid import FlowerEngine, flower_engine
from fivefold.engines.flower.superlink import Coordinator, admit, environment, make, running
from tests.journeys.consortium import ROOT, signed


@dataclass
class Deployment:
    """`consortium`: a prepared folder. Sites are found under `consortium/sites`."""

    consortium: Path
    coordinator: Coordinator
    address: str
    superlink: ExitStack
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    """The addresses by which some sites reach the SuperLink."""

    def start(self, name: str) -> None:
        words = ("site", "start", "--site", self.consortium / "sites" / name, "--superlink", self.ways.get(name, self.address))
        command = [sys.executable, "-m", "fivefold.cli.main", *map(str, words)]
        command += ["--root-certificates", str(self.coordinator.authority)]
        with (self.consortium / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=ROOT)

    def stop_superlink(self) -> None:
        self.superlink.close()

    def start_superlink(self) -> None:
        """At the address that the sites know, with none of what the one before held."""
        host, _, port = self.address.rpartition(":")
        assert self.superlink.enter_context(running(self.coordinator, host, int(port))) == self.address

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    @contextmanager
    def engine(self, deadline: float = 60.0) -> Iterator[FlowerEngine]:
        keys: Mapping[str, bytes] = {s.name: bytes.fromhex(s.public_key) for s in signed(self.consortium).study.sites}
        engine = flower_engine(self.coordinator.path, keys, deadline=deadline)
        try:
            yield engine
        finally:
            engine.close()

    def wait_for(self, there: Callable[[], bool], seconds: float = 240.0) -> None:
        """Until something has come about; a failure after `seconds`."""
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end, "it did not come about"
            threading.Event().wait(0.02)

    def said(self, name: str) -> str:
        return (self.consortium / f"{name}.log").read_text("utf-8")


@contextmanager
def deployed(
    consortium: Path, folder: Path, way: Callable[[str, str], str] = lambda site, address: address
) -> Iterator[Deployment]:
    """All sites of a prepared consortium, admitted and started. `way`: a site, the SuperLink's address → how it gets there."""
    names = [s.name for s in signed(consortium).study.sites]
    coordinator = make(folder, ["localhost", "127.0.0.1"])
    for name in names:
        admit(coordinator, name, (consortium / "sites" / name / "keys" / "connection.pub").read_bytes())
    with ExitStack() as stack:
        superlink = stack.enter_context(ExitStack())
        it = Deployment(consortium, coordinator, superlink.enter_context(running(coordinator)), superlink)
        it.ways |= {name: way(name, it.address) for name in names}
        try:
            for name in names:
                it.start(name)
            it.wait_for(lambda: all("is connected" in it.said(name) for name in names))
            yield it
        finally:
            for process in it.processes.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in it.processes.values():
                process.wait(20)
