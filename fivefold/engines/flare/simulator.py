"""`--engine flare`: FLARE's simulator as a child process, in an environment where nvflare is installed beside Fivefold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from fivefold.engines.flare import relay
from fivefold.engines.flare.job import write_allow_list, write_job
from fivefold.errors import EngineFailed, EngineMissing
from fivefold.study.digest import SignedStudy

START_SECONDS = 180


class FlareSimulator:
    """An engine. `python` is the interpreter of an environment with nvflare; `sites` holds a folder for each site.

    Every site is a FLARE client with a process of its own; all run at once, for a node keeps a round's secrets in memory.
    """

    def __init__(self, found: SignedStudy, sites: Path, python: Path, place: Path) -> None:
        address = str(place / "coordinator.socket")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(1)
        self._listener.settimeout(1.0)
        names = [site.name for site in found.study.sites]
        write_allow_list(place / "workspace" / "local")
        write_job(found, place / "job")
        command = [
            *(str(python), "-m", "nvflare.private.fed.app.simulator.simulator", str(place / "job")),
            *("-w", str(place / "workspace"), "-c", ",".join(names), "-t", str(len(names)), "-m", str(max(100, len(names)))),
        ]
        environment = os.environ | {
            relay.ADDRESS: address,
            "FIVEFOLD_SITES": str(sites.resolve()),
        }
        self._log = (place / "flare.log").open("wb")
        self._child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, cwd=place
        )
        self._connection: Connection | None = None

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """One trip; replies as they arrive. Raises `EngineFailed` where FLARE has gone."""
        return relay.exchange(self._connected(), requests)

    def close(self) -> None:
        """End the job; FLARE stops its clients itself."""
        if self._connection is not None:
            relay.close(self._connection)
            self._connection.close()
        self._listener.close()
        try:
            self._child.wait(timeout=60 if self._connection is not None else 0.1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()

    def __enter__(self) -> FlareSimulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            for _ in range(START_SECONDS):
                try:
                    self._connection = Connection(self._listener.accept()[0].detach())
                    return self._connection
                except TimeoutError:
                    if self._child.poll() is not None:
                        break
            raise EngineFailed("FLARE's simulator did not start the job", help=f"Its log is {self._log.name}.")
        return self._connection


def interpreter(named: Path | None) -> Path:
    """The Python of an environment with nvflare: the one named, `.venv-flare`, or our own. Raises `EngineMissing`."""
    here = [named] if named is not None else [Path(".venv-flare/bin/python"), Path(sys.executable)]
    for python in here:
        python = python / "bin" / "python" if python.is_dir() else python
        if python.exists() and subprocess.run([python, "-c", "import nvflare, fivefold"], capture_output=True).returncode == 0:
            return python.absolute()
    raise EngineMissing(
        "no environment with both nvflare and fivefold was found",
        help="Make one with `sh tools/make_env.sh flare`, or name one with --flare-python.",
    )


def flare_simulator(found: SignedStudy, sites: Path, python: Path | None) -> FlareSimulator:
    """Start the simulator in a folder of its own under the system's temporary files."""
    return FlareSimulator(found, sites, interpreter(python), Path(tempfile.mkdtemp(prefix="fivefold-flare-")))
