"""Thirty faults, each with the end that it must come to, and the carriers that play them.

    python -m tests.journeys.faults CONSORTIUM COORDINATOR RUN WHAT PHASE

is a coordinator that kills or stops itself in that phase of a run over the SuperLink.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fivefold.coordinator import session
from fivefold.engines.flower.grid import flower_engine
from fivefold.engines.local import LocalEngine
from fivefold.errors import FivefoldError, SiteRefused
from fivefold.protocol.messages import Envelope, envelopes_of
from fivefold.site.folder import opened
from fivefold.site.node import Node
from tests.journeys.consortium import signed

SITE = "inst-10-12"
SAME = "same"
"""The result of a run that was left alone: at once, over a connection of its own seeking, or resumed."""
SHARE = "share"
"""The result without the site's share of two rounds at most: that of a run in which it was absent from just these."""
HERE, OVER = "here", "over"
"""The nodes in this process, or processes of their own behind a SuperLink."""


@dataclass(frozen=True)
class Fault:
    """`who`: whose connection or process it is. `ends`: SAME, SHARE, or the error after which a resumed run ends in SAME.
    `always`: it is played when nobody asks for all thirty."""

    what: str
    who: str
    phase: str
    carrier: str
    ends: str | type[FivefoldError]
    always: bool = False

    @property
    def loses_the_link(self) -> bool:
        """The run must seek its SuperLink anew."""
        return self.carrier == OVER and self.who == "coordinator" and self.what in {"cut", "corrupt"}

    @property
    def name(self) -> str:
        return f"{self.what}-{self.who}-{self.phase}-{self.carrier}"


FAULTS = (
    Fault("corrupt", "site", "open", HERE, SHARE),
    Fault("duplicate", "coordinator", "open", HERE, SAME),
    Fault("cut", "site", "open", OVER, SHARE),
    Fault("kill", "coordinator", "open", OVER, SAME),
    Fault("kill", "site", "enrol", HERE, SHARE, always=True),
    Fault("cut", "coordinator", "enrol", HERE, SAME),
    Fault("corrupt", "coordinator", "enrol", HERE, SAME),
    Fault("stop", "coordinator", "enrol", OVER, SAME),
    Fault("cut", "site", "share", HERE, SHARE, always=True),
    Fault("stop", "site", "share", HERE, SHARE),
    Fault("duplicate", "coordinator", "share", HERE, SAME),
    Fault("kill", "coordinator", "share", OVER, SAME),
    Fault("kill", "site", "ask", OVER, SHARE),
    Fault("stop", "site", "ask", OVER, SHARE),
    Fault("cut", "site", "ask", OVER, SHARE, always=True),
    Fault("slow", "site", "ask", OVER, SAME),
    Fault("corrupt", "site", "ask", OVER, SHARE),
    Fault("duplicate", "site", "ask", OVER, SAME, always=True),
    Fault("kill", "coordinator", "ask", OVER, SAME),
    Fault("cut", "coordinator", "ask", OVER, SAME),
    Fault("slow", "coordinator", "ask", OVER, SAME),
    Fault("corrupt", "coordinator", "ask", OVER, SAME, always=True),
    Fault("kill", "site", "survivors", HERE, SHARE),
    Fault("corrupt", "site", "survivors", HERE, SAME, always=True),
    Fault("corrupt", "coordinator", "survivors", HERE, SiteRefused, always=True),
    Fault("kill", "site", "unmask", OVER, SHARE),
    Fault("kill", "coordinator", "unmask", OVER, SAME),
    Fault("corrupt", "site", "unmask", HERE, SHARE),
    Fault("stop", "site", "close", HERE, SAME),
    Fault("kill", "coordinator", "close", OVER, SAME),
)


class Carrier(Protocol):
    def exchange(self, requests: Mapping[str, bytes]) -> Iterable[tuple[str, bytes]]: ...


class Recording:
    """An engine that writes down what each site said: one line each with site, place, kind and digest."""

    def __init__(self, engine: Carrier, heard: Path) -> None:
        self.engine, self.heard = engine, heard

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for site, reply in self.engine.exchange(requests):
            note(self.heard, site, reply)
            yield site, reply


class Striking(Recording):
    """It strikes once, in the first trip of that phase, and in round 3 where every round has that phase."""

    def __init__(self, engine: Carrier, phase: str, heard: Path) -> None:
        super().__init__(engine, heard)
        self.phase, self.struck = phase, False

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        sent = {name: requests[name] for name in requests}
        asked = [e for e in map(Envelope.decode, sent.values()) if e.kind == self.phase]
        first = self.phase in {"open", "enrol", "share", "close"}
        if asked and not self.struck and (first or asked[0].place.round == 3):
            self.struck = True
            yield from self.strike(sent)
        else:
            yield from self.carry(sent)

    def carry(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        return Recording.exchange(self, requests)

    def strike(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError


def note(heard: Path, site: str, reply: bytes) -> None:
    with heard.open("a", encoding="utf-8") as file:
        for data in envelopes_of(reply):
            said = Envelope.decode(data)
            where = f"{site} {said.place.run} {said.place.round} {said.place.attempt} {said.kind}"
            print(where, hashlib.sha256(data).hexdigest(), file=file)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class Here(Striking):
    """A fault between coordinator and nodes of this process."""

    def __init__(self, engine: LocalEngine, fault: Fault, heard: Path) -> None:
        super().__init__(engine, fault.phase, heard)
        self.nodes, self.fault = engine, fault
        self.late: list[tuple[str, bytes]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        late, self.late = self.late, []
        yield from late
        yield from super().exchange(requests)

    def strike(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        struck = set(requests) if self.fault.who == "coordinator" else {SITE}
        for name, request in requests.items():
            if name in struck:
                yield from getattr(self, self.fault.what)(name, request)
            else:
                yield from self.carry({name: request})

    def kill(self, name: str, request: bytes) -> Iterator[tuple[str, bytes]]:
        """What a process of this site knew is gone; another one answers."""
        self.nodes.nodes[name].close()
        self.nodes.nodes[name] = Node(opened(self.nodes.nodes[name].folder.path))
        yield from self.carry({name: request})

    def cut(self, name: str, request: bytes) -> Iterator[tuple[str, bytes]]:
        """The site has answered, and nobody hears it."""
        list(self.carry({name: request}))
        yield from ()

    def stop(self, name: str, request: bytes) -> Iterator[tuple[str, bytes]]:
        """The answer comes with the next trip."""
        answers = list(self.carry({name: request}))
        self.late += answers
        yield from ()

    def corrupt(self, name: str, request: bytes) -> Iterator[tuple[str, bytes]]:
        if self.fault.who == "coordinator":
            yield from self.carry({name: flipped(request)})
        else:
            for site, reply in self.carry({name: request}):
                yield site, flipped(reply)

    def duplicate(self, name: str, request: bytes) -> Iterator[tuple[str, bytes]]:
        for _ in range(2):
            yield from self.carry({name: request})


class Over(Striking):
    """A fault on the way over the SuperLink: it begins before the trip, and is mended when the others have answered."""

    def __init__(self, engine: Carrier, phase: str, heard: Path, begin: Callable[[], None], mend: Callable[[], None]) -> None:
        super().__init__(engine, phase, heard)
        self.begin, self.mend = begin, mend

    def strike(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.begin()
        yield from self.carry(requests)
        self.mend()


class Twice(Striking):
    """Every site is asked the same twice, and both answers arrive."""

    def strike(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        yield from self.carry(requests)
        yield from self.carry(requests)


class Itself(Striking):
    """The coordinator's own process is killed or stopped, with one answer in hand and the others on their way."""

    number = signal.SIGKILL

    def strike(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for count, replied in enumerate(self.carry(requests)):
            if count == 0:
                os.kill(os.getpid(), self.number)
            yield replied


def coordinator(consortium: Path, folder: Path, run: Path, what: str, phase: str) -> None:
    study = signed(consortium)
    keys = {s.name: bytes.fromhex(s.public_key) for s in study.study.sites}
    engine = flower_engine(folder, keys, deadline=60.0)
    striking = Itself(engine, phase, run.with_suffix(".heard"))
    striking.number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what]
    session.run(study, striking, run, tell=lambda _: None, engine_name="flower", resume=False)
    engine.close()


if __name__ == "__main__":
    coordinator(*map(Path, sys.argv[1:4]), *sys.argv[4:6])
