"""The coordinator's SuperLink: Flower's own server as a child process, with TLS, node authentication and nothing installed.

DIR/ca.pem  ca.key  server.pem  server.key   its certificates; sites are given ca.pem
DIR/attach.secret                            who attaches as a run's server side has to know it
DIR/nodes/NAME.pub                           connection keys of the sites that may connect
DIR/audit.jsonl                              who was let in, and who was not (`door.py`)
DIR/address                                  where it listens while it runs: one line, or three (`dialect.Addresses`)
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fivefold.engines.flower.certificates import make_authority, make_server
from fivefold.engines.flower.connections import register
from fivefold.engines.flower.dialect import Addresses, dialect
from fivefold.engines.flower.door import SUPERLINK_LOG, door_log, print_of
from fivefold.errors import EngineProblem, RunFolderTaken, SourceNotFound

READY_SECONDS = 60.0
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_LOG_LEVEL": "WARNING",
}
"""Flower tells its makers nothing, asks for no update, installs nothing, and writes no line for each call."""


LINKED = "import ctypes, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 15); "
"""Before anything else: end when the parent ends, however it ends (PR_SET_PDEATHSIG, SIGTERM)."""


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's folder."""

    path: Path

    @property
    def authority(self) -> Path:
        return self.path / "ca.pem"

    def secret(self) -> bytes:
        return self._read("attach.secret")

    def address(self) -> str:
        """Where its SuperLink listens to sites. Raises `SourceNotFound` where none runs."""
        return self.addresses().fleet

    def addresses(self) -> Addresses:
        """Where its SuperLink listens. Raises `SourceNotFound` where none runs."""
        return Addresses.read(self._read("address").decode("ascii"))

    def sites(self) -> dict[str, bytes]:
        """Name → connection key (PEM) of the sites that may connect."""
        return {f.stem: f.read_bytes() for f in sorted((self.path / "nodes").glob("*.pub"))}

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise SourceNotFound(
                f"{self.path} has no {name}", help=f"Start the coordinator first: `fivefold coordinator start {self.path}`."
            ) from error


def make(path: Path, hosts: Sequence[str]) -> Coordinator:
    """A coordinator's folder with authority, server certificate for `hosts`, and secret; what is there stays."""
    (path / "nodes").mkdir(parents=True, exist_ok=True, mode=0o700)
    make_authority(path)
    make_server(path, hosts)
    if not (path / "attach.secret").exists():
        with open(os.open(path / "attach.secret", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
    return Coordinator(path)


def admit(coordinator: Coordinator, name: str, public: bytes) -> bool:
    """Let a site's connection key in, now and at every start. False where it is in already."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise EngineProblem(f"{name!r:.60} is not a site's name", help="Use the name that stands in the study.")
    if coordinator.sites().get(name) != public:
        with door_log(coordinator.path) as log:
            log.write("site admitted", site=name, key=print_of(public))
    (coordinator.path / "nodes" / f"{name}.pub").write_bytes(public)
    if not (coordinator.path / "address").exists():
        return True
    try:
        return register(coordinator.addresses(), coordinator.authority, public, name)
    except (ConnectionError, PermissionError) as error:
        raise EngineProblem(f"the SuperLink did not admit {name}: {error}") from None


@contextmanager
def running(coordinator: Coordinator, host: str = "127.0.0.1", port: int = 0, *, log: Path | None = None) -> Iterator[str]:
    """A SuperLink while the block lasts; its address for sites. All admitted sites are registered anew: it keeps nothing.

    Raises `EngineProblem` where it does not start, `RunFolderTaken` where one runs on this folder.
    """
    place, speech = coordinator.path / "address", dialect()
    if place.exists() and _listens(coordinator.address()):
        raise RunFolderTaken(f"a SuperLink runs on {coordinator.path} already", help="Stop it, or take another folder.")
    ports = [port, *_free(speech.PORTS - 1)] if port else _free(speech.PORTS)
    where, at = speech.options(host, ports, coordinator.path)
    log = log or coordinator.path / SUPERLINK_LOG
    with log.open("ab") as out:
        process = subprocess.Popen(
            _command(coordinator, where), stdout=out, stderr=out, env=environment(), start_new_session=True
        )
    try:
        _wait(process, at, log)
        place.write_text(at.text(), "ascii")  # before the sites are read: who is admitted from here on registers at once
        for name, public in coordinator.sites().items():
            _registered(coordinator, at, name, public)
        yield at.fleet
    finally:
        place.unlink(missing_ok=True)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment() -> Mapping[str, str]:
    """The environment of Flower's processes."""
    return os.environ | QUIET


def _command(coordinator: Coordinator, where: Sequence[str]) -> list[str]:
    at = coordinator.path
    return [
        *(sys.executable, "-c", f"{LINKED}from flwr.superlink.cli import flower_superlink; flower_superlink()"),
        *where,
        *(
            "--ssl-ca-certfile",
            str(at / "ca.pem"),
            "--ssl-certfile",
            str(at / "server.pem"),
            "--ssl-keyfile",
            str(at / "server.key"),
        ),
        "--enable-supernode-auth",
        *("--isolation", "process", "--superexec-auth-secret-file", str(at / "attach.secret")),
        "--disable-runtime-dependency-installation",
    ]


def _wait(process: subprocess.Popen[bytes], at: Addresses, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EngineProblem(f"the SuperLink ended at once; what it said is in {log}")
        if all(map(_listens, at.all)):
            return
        time.sleep(0.05)
    raise EngineProblem(f"the SuperLink did not start within {READY_SECONDS:.0f} s; what it said is in {log}")


def _registered(coordinator: Coordinator, at: Addresses, name: str, public: bytes) -> None:
    try:
        register(at, coordinator.authority, public, name)
    except (ConnectionError, PermissionError) as error:
        raise EngineProblem(f"the SuperLink did not admit {name}: {error}") from None


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _free(count: int) -> list[int]:
    """So many ports that nobody has."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in sockets]
