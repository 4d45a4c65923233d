"""The Flower engine: the coordinator's end. A Flower run is only a connection; the Fivefold run is the journal's.

The coordinator attaches as the server side of a Flower run and has its own polling. It does not know which node is which site:
its first request goes to every node that is there, with what each site is asked, and the signatures of the replies tell.
"""

from __future__ import annotations

import fcntl
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fivefold.engines.flower import wire
from fivefold.engines.flower.dialect import Addresses, dialect
from fivefold.engines.flower.superlink import Coordinator
from fivefold.engines.flower.wire import Link
from fivefold.errors import EngineProblem, FivefoldError, ProtocolViolation

POLL_FIRST, POLL_SHARE, POLL_MOST = 0.02, 0.1, 0.5
LOOK_AROUND = 1.0
BATCH = 4 << 20
POSTED_FOR = 7 * 86_400.0
"""Seconds for which a message lies at the SuperLink whose answer nobody waits for."""
LOST = "superlink_lost"
"""The rule by which an error says that a connection that was there is lost."""
SILENT = 12.0
"""Seconds without a sign of life (busy sites give one every 2 s) after which a site that was asked is held to be gone."""


def _lost_link(error: Exception) -> EngineProblem:
    return EngineProblem(str(error), rule=LOST, help="Start the coordinator again, then continue with --resume.")


def _never() -> bool:
    return False


@dataclass
class _Waiting:
    """What is known of a node that was asked."""

    node: int
    nonce: bytes
    names: frozenset[str]
    alive_until: float
    moved: float


class FlowerEngine:
    """`keys`: site → Ed25519 public key (32 bytes) of the study. `deadline`: seconds after which a site is absent.

    Raises `EngineProblem` where the SuperLink is not there, and `ProtocolViolation` where a site speaks another version.
    """

    def __init__(self, link: Link, keys: Mapping[str, bytes], *, deadline: float = 600.0, gather: float = 30.0) -> None:
        self.link, self.keys, self.deadline, self.gather = link, dict(keys), deadline, gather
        self._node: dict[str, int] = {}
        self._gone: dict[str, float] = {}
        self._gathered = False
        self._enough: Callable[[], bool] = _never
        self._late: dict[str, int] = {}
        """Messages of earlier trips that were not waited for, and their nodes."""
        self._posted: dict[str, _Waiting] = {}
        self._unheard: list[str] = []
        """Sites to which something was posted, and that have no node."""
        self._turned: list[Mapping[str, str]] = []
        self._told = set[tuple[int, str]]()

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Replies as they arrive. A site without a node, or that gives no sign of life, or none in time, is absent."""
        return self.exchange_until(requests, _never)

    def exchange_until(self, requests: Mapping[str, bytes], enough: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """As `exchange`, until `enough` holds (`coordinator/stragglers.py`): who has not answered by then is not given up."""
        self._enough = enough
        try:
            yield from self._exchange(requests)
        except (ConnectionError, PermissionError) as error:
            raise _lost_link(error) from None

    def post(self, requests: Mapping[str, bytes]) -> None:
        """Ask these sites, and go on (`coordinator/buffers.py`). Raises `EngineProblem`."""
        for site, data in requests.items():
            node = self._node.get(site)
            if node is None or site in self._gone:
                self._unheard.append(site)
                continue
            nonce = secrets.token_bytes(wire.NONCE_BYTES)
            try:
                pushed = self.link.push({node: wire.request(nonce, {site: data}, len(self._node))}, POSTED_FOR)
            except (ConnectionError, PermissionError) as error:
                raise _lost_link(error) from None
            for id in pushed:
                self._posted[id] = _Waiting(node, nonce, frozenset({site}), 0.0, time.monotonic())

    def arrived(self) -> list[tuple[str, bytes]]:
        """Replies to what was posted; an empty one of a site that gives no more signs of life. Raises `EngineProblem`."""
        here = [(site, b"") for site in self._unheard]
        self._unheard.clear()
        start = looked = time.monotonic()
        try:
            while self._posted and not here:
                time.sleep(min(max(POLL_FIRST, POLL_SHARE * (time.monotonic() - start)), POLL_MOST))
                for answer in self.link.pull(list(self._posted)):
                    of = self._posted.pop(answer.to, None)
                    if of is not None:
                        (site,) = of.names
                        heard = self._heard(answer.payload, of)
                        here.append(heard if heard is not None and heard[0] == site else (site, b""))
                now = time.monotonic()
                if now > looked + LOOK_AROUND:
                    looked, before = now, dict(self._posted)
                    self._look(self._posted, now)
                    here += [(site, b"") for id, of in before.items() if id not in self._posted for site in of.names]
        except (ConnectionError, PermissionError) as error:
            raise _lost_link(error) from None
        return here

    def turned_away(self) -> list[Mapping[str, str]]:
        """Who answered, since this was last asked, and is not the site that it says, or none of this study: its node, the code
        and the rule; each once."""
        new, self._turned = self._turned, []
        return new

    def busy(self) -> frozenset[str]:
        """Sites that have not yet answered what an earlier trip asked, or what was posted."""
        late = {*self._late.values(), *(of.node for of in self._posted.values())}
        return frozenset(site for site, node in self._node.items() if node in late and site not in self._gone)

    def close(self) -> None:
        """End the Flower run."""
        self.link.close()

    def _exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        seen = {one.node: one.alive_until for one in self.link.nodes()} if self._lost(requests) else {}
        for site in [s for s in self._gone if s in requests]:
            if seen.get(self._node.get(site, 0), self._gone[site]) != self._gone[site]:
                del self._gone[site]
        known = [s for s in requests if s in self._node and s not in self._gone]
        yield from self._ask(((self._node[s], {s: requests[s]}) for s in known), len(known), seen)
        yield from self._seek({s: requests[s] for s in requests if s not in self._node}, seen)

    def _seek(self, unknown: Mapping[str, bytes], seen: Mapping[int, float]) -> Iterator[tuple[str, bytes]]:
        """Ask every node that is none of the sites known, until all sites have been found, or for a while."""
        end = time.monotonic() + (0 if self._gathered else self.gather)
        asked = set(self._node.values())
        while unknown and not self._enough():
            fresh = [n for n in seen or {o.node: o.alive_until for o in self.link.nodes()} if n not in asked]
            seen = {}
            asked |= set(fresh)
            wanted = unknown
            for site, answer in self._ask(((node, wanted) for node in fresh), len(fresh), {}):
                unknown = {s: data for s, data in unknown.items() if s != site}
                yield site, answer
            if not unknown or time.monotonic() > end:
                break
            if not fresh:
                time.sleep(POLL_MOST)
        self._gathered = True

    def _lost(self, requests: Mapping[str, bytes]) -> bool:
        return any(s in self._gone or s not in self._node for s in requests)

    def _ask(
        self, requests: Iterable[tuple[int, Mapping[str, bytes]]], nodes: int, seen: Mapping[int, float]
    ) -> Iterator[tuple[str, bytes]]:
        """Ask nodes, each for some sites; what they answer, signed by a site of the study."""
        waiting: dict[str, _Waiting] = {}
        start = time.monotonic()
        nonces: dict[int, bytes] = {}
        names: dict[int, frozenset[str]] = {}
        batch: dict[int, bytes] = {}

        def send() -> None:
            for id, node in self.link.push(batch, self.deadline + 1).items():
                waiting[id] = _Waiting(node, nonces[node], names[node], seen.get(node, 0.0), time.monotonic())
            batch.clear()

        for node, asked in requests:  # several in one call, but of large ones a few at once
            nonces[node], names[node] = secrets.token_bytes(wire.NONCE_BYTES), frozenset(asked)
            batch[node] = wire.request(nonces[node], asked, nodes)
            if sum(map(len, batch.values())) > BATCH:
                send()
        if batch:
            send()
        looked = start
        while waiting and (now := time.monotonic()) < start + self.deadline:
            if self._enough():
                self._late |= {id: of.node for id, of in waiting.items()}
                return
            # The longer it has taken, the longer the next wait: a trip is found late by a tenth at most, and asked for seldom.
            time.sleep(min(max(POLL_FIRST, POLL_SHARE * (now - start)), POLL_MOST))
            for answer in self.link.pull([*waiting, *self._late]):
                self._late.pop(answer.to, None)
                of = waiting.pop(answer.to, None)
                if of is not None and (heard := self._heard(answer.payload, of)) is not None and heard[0] in of.names:
                    yield heard
            now = time.monotonic()
            if now > looked + LOOK_AROUND:
                looked = now
                self._look(waiting, now)
        for of in waiting.values():
            self._lose(of)

    def _heard(self, payload: bytes | None, of: _Waiting) -> tuple[str, bytes] | None:
        if not payload:
            return None
        try:
            site, answer = wire.read_reply(payload, of.nonce, self.keys)
        except ProtocolViolation:
            raise  # mixed versions end the run before a row is read
        except FivefoldError as error:
            if error.rule != wire.OTHER_STUDY and (of.node, error.rule) not in self._told:
                self._told.add((of.node, error.rule))
                self._turned.append({"node": str(of.node)} | error.public())
            return None
        self._node[site] = of.node
        self._gone.pop(site, None)
        return (site, answer) if answer else None

    def _look(self, waiting: dict[str, _Waiting], now: float) -> None:
        """Give up on nodes that have gone."""
        seen = {one.node: one.alive_until for one in self.link.nodes()}
        for id, of in list(waiting.items()):
            if seen.get(of.node, of.alive_until) != of.alive_until:
                of.alive_until, of.moved = seen[of.node], now
            if of.node not in seen or now > of.moved + SILENT:
                self._lose(waiting.pop(id))

    def _lose(self, of: _Waiting) -> None:
        for site, node in self._node.items():
            if node == of.node:
                self._gone[site] = of.alive_until


def flower_engine(folder: Path, keys: Mapping[str, bytes], *, address: str = "", deadline: float = 600.0) -> FlowerEngine:
    """An engine over the coordinator's SuperLink. Raises `SourceNotFound` where none was started, `EngineProblem`."""
    from fivefold.engines.flower.connections import RunConnection

    coordinator = Coordinator(folder)
    secret, at = coordinator.secret(), Addresses.read(address) if address else coordinator.addresses()
    if address and dialect().PORTS > 1:
        raise EngineProblem(
            "this flwr opens a port to sites alone, so a study runs where its SuperLink does",
            help="Run it on the coordinator's machine, without --superlink.",
        )
    with (folder / ".attach.lock").open("w") as lock:  # two runs at once must not take each other's connection
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            link = RunConnection(at, coordinator.authority, secret)
        except (ConnectionError, PermissionError) as error:
            raise EngineProblem(
                f"no connection to the SuperLink at {at.runtime}: {error}",
                help=f"Start it with `fivefold coordinator start {folder}`.",
            ) from None
    return FlowerEngine(link, keys, deadline=deadline)
