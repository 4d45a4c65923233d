"""Which flwr is installed, and what differs between those that are admitted: one file each, of one shape.

A coordinator and its sites use the same flwr: since 1.41 it speaks HTTP, 1.34 (the last that NVIDIA FLARE carries) gRPC.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from fivefold.engines.flower.wire import Seen
from fivefold.errors import EngineMissing

T = TypeVar("T")
ADMITTED = {"1.34": "fleet_1_34", "1.41": "fleet_1_41"}
"""Minor version of flwr → the file that knows it from within."""
NEWEST = "1.41"


@dataclass(frozen=True)
class Addresses:
    """Where a SuperLink listens, each HOST:PORT: to sites, to who starts runs and admits sites, to a run's server side."""

    fleet: str
    control: str
    runtime: str

    @classmethod
    def read(cls, text: str) -> Addresses:
        """One line where all is one port, else three."""
        lines = text.split() or [""]
        return cls(lines[0], *(lines[1:3] if len(lines) > 2 else (lines[0], lines[0])))

    def text(self) -> str:
        alone = self.fleet == self.control == self.runtime
        return "".join(f"{one}\n" for one in ((self.fleet,) if alone else (self.fleet, self.control, self.runtime)))

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.fleet, self.control, self.runtime)))


class Dialect(Protocol):
    """One flwr from within. Clients have the methods of Flower's services, and `close`."""

    @property
    def PORTS(self) -> int: ...

    def options(self, host: str, ports: list[int], folder: Path) -> tuple[list[str], Addresses]:
        """The options of `flower-superlink` that say where it listens and with which certificates, and what they come to."""

    def fleet(self, address: str, authority: bytes, private_key: Any) -> Any:
        """A site's client, authenticated by its connection key."""

    def control(self, at: Addresses, authority: bytes) -> AbstractContextManager[Any]:
        """A client of who starts runs and admits sites."""

    def registration(self, public: bytes, name: str) -> Any:
        """The request that lets a site in, by its connection key (PEM)."""

    def runtime(self, at: Addresses, authority: bytes, token: str) -> Any:
        """A client of the run whose token this is."""

    def acquire(self, at: Addresses, authority: bytes, secret: bytes, run: int) -> str:
        """The token of a run's server side; empty while there is none."""

    def nodes(self, client: Any) -> list[Seen]:
        """The nodes that are there, asked over a client of `runtime`."""

    def call(self, method: Callable[[Any], T], request: Any) -> T:
        """One call. Raises `ConnectionError`, or `PermissionError` where the SuperLink says no."""

    def alone(self) -> None:
        """Let this process, which is none of Flower's own, build messages and call an app."""


def installed() -> str:
    """The version of flwr; empty where there is none."""
    try:
        return version("flwr")
    except PackageNotFoundError:
        return ""


def admitted(found: str) -> str:
    """The file for a version of flwr. Raises `EngineMissing` with the versions that there are."""
    name = ADMITTED.get(".".join(found.split(".")[:2]))
    if name is None:
        have = f"flwr {found} is installed" if found else "flwr is not installed"
        raise EngineMissing(
            f"{have}, and Fivefold speaks with flwr {' and '.join(ADMITTED)}",
            help=f"pip install 'flwr=={NEWEST}.*', at the coordinator and at every site.",
        )
    return name


def dialect() -> Dialect:
    """That of the flwr that is installed. Raises `EngineMissing` where none of those admitted is."""
    # a module has the shape, which its type cannot tell
    return cast(Dialect, import_module(f"fivefold.engines.flower.{admitted(installed())}"))
