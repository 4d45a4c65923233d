"""The in-process engine with sites at work side by side: each node in a thread of its own, so that none waits for another.

A node answers one request at a time. What it was asked and has not begun is replaced by a newer request: a site that was slow
does not first answer what nobody waits for any more.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

TICK = 0.01
"""Seconds after which a trip that nobody answers asks again whether it may end."""


class Answers(Protocol):
    """A site's node."""

    def answer(self, request: bytes) -> bytes: ...

    def close(self) -> None: ...


class _Desk:
    """One node's thread: what lies there to be answered, and what it is busy with."""

    def __init__(self, name: str, node: Answers, said: Callable[[str, bytes, bytes], None]) -> None:
        self._name, self._node, self._said = name, node, said
        self._work = threading.Condition()
        self._kept: list[bytes] = []
        self._latest: bytes | None = None
        self._busy: bytes | None = None
        self._over = False
        self._thread = threading.Thread(target=self._serve, name=f"site {name}", daemon=True)
        self._thread.start()

    def put(self, request: bytes, *, keep: bool = False) -> None:
        """`keep`: it is answered whatever else is asked meanwhile."""
        with self._work:
            if request == self._busy:
                return
            if keep:
                self._kept.append(request)
            else:
                self._latest = request
            self._work.notify()

    def at(self) -> bytes | None:
        """The request that it is busy with."""
        with self._work:
            return self._busy

    def finish(self) -> None:
        """Answer what lies there, and end."""
        with self._work:
            self._over = True
            self._work.notify()
        self._thread.join()
        self._node.close()

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            reply = self._node.answer(request)
            with self._work:
                self._busy = None
            self._said(self._name, request, reply)

    def _next(self) -> bytes | None:
        with self._work:
            while not self._kept and self._latest is None:
                if self._over:
                    return None
                self._work.wait()
            if self._kept:
                self._busy = self._kept.pop(0)
            else:
                self._busy, self._latest = self._latest, None
            return self._busy


class ConcurrentEngine:
    """Carries messages to nodes in threads of their own."""

    def __init__(self, nodes: Mapping[str, Answers]) -> None:
        self._replies: queue.Queue[tuple[str, bytes, bytes]] = queue.Queue()
        self._desks = {name: _Desk(name, node, self._come) for name, node in nodes.items()}
        self._asked: dict[str, bytes] = {}
        """What the trip that is on still waits for."""
        self._posted: dict[str, bytes] = {}
        self._here: list[tuple[str, bytes]] = []

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """(site, reply) as they come."""
        return self.exchange_until(requests, lambda: False)

    def exchange_until(self, requests: Mapping[str, bytes], enough: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """`stragglers.Patient`: a reply to what was asked in an earlier trip, and is not asked now, is let go."""
        self._asked = waiting = dict[str, bytes]()
        for name in requests:
            if name in self._desks:
                waiting[name] = requests[name]
                self._desks[name].put(waiting[name])
        try:
            while waiting and not enough():
                yield from self._next(waiting)
        finally:
            self._asked = {}

    def busy(self) -> frozenset[str]:
        """Sites that are at what an earlier trip asked, or at what was posted."""
        at = {name: desk.at() for name, desk in self._desks.items()}
        return frozenset(name for name, request in at.items() if request is not None and request != self._asked.get(name))

    def _next(self, waiting: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """The next reply, if there is one before long."""
        try:
            name, request, reply = self._replies.get(timeout=TICK)
        except queue.Empty:
            return
        if waiting.get(name) == request:
            del waiting[name]
            yield name, reply
        else:
            self._keep(name, request, reply)

    def post(self, requests: Mapping[str, bytes]) -> None:
        """Ask these sites, and go on: their replies are `arrived` when they are there."""
        for name in requests:
            if name in self._desks:
                self._posted[name] = requests[name]
                self._desks[name].put(self._posted[name], keep=True)

    def arrived(self) -> list[tuple[str, bytes]]:
        """Replies to what was posted. Waits for the first; none where nothing is out."""
        while self._posted and not self._here:
            self._keep(*self._replies.get())
        while not self._replies.empty():
            self._keep(*self._replies.get())
        here, self._here = self._here, []
        return here

    def close(self) -> None:
        """Let the nodes answer what they have begun, and forget their runs' secrets."""
        for desk in self._desks.values():
            desk.finish()

    def _come(self, name: str, request: bytes, reply: bytes) -> None:
        self._replies.put((name, request, reply))

    def _keep(self, name: str, request: bytes, reply: bytes) -> None:
        if self._posted.get(name) == request:
            del self._posted[name]
            self._here.append((name, reply))
