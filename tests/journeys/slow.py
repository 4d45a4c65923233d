"""A breast consortium whose study is changed and signed anew, and sites that take as long as the test says."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from fivefold.engines.concurrent import ConcurrentEngine
from fivefold.engines.local import local_nodes
from fivefold.protocol.messages import Envelope
from fivefold.site.node import Node
from tests.journeys.consortium import SITES, approve_anew, sign_anew


def sign_again(out: Path, text: str, *, totals: str = "refused") -> None:
    """The study in `out` with this text, frozen, signed, approved and prepared by everybody."""
    sign_anew(out, text)
    approve_anew(out, "--site-totals", totals)


class Slow:
    """A node that stops before it answers these kinds of request in these rounds, until it is let go."""

    def __init__(self, node: Node, kinds: frozenset[str], rounds: range) -> None:
        self.node, self.kinds, self.rounds = node, kinds, rounds
        self.stopped, self.go = threading.Event(), threading.Event()

    def answer(self, request: bytes) -> bytes:
        asked = Envelope.decode(request)
        if asked.kind in self.kinds and asked.place.round in self.rounds:
            self.stopped.set()
            assert self.go.wait(60)
        return self.node.answer(request)

    def close(self) -> None:
        self.node.close()


def with_slow(out: Path, slow: Mapping[str, tuple[frozenset[str], range]]) -> tuple[ConcurrentEngine, dict[str, Slow]]:
    """An engine over the sites in `out`, and its slow nodes by name."""
    nodes = local_nodes(out / "sites", SITES)
    made = {name: Slow(nodes[name], *how) for name, how in slow.items()}
    return ConcurrentEngine({**nodes, **made}), made


def done_with(engine: ConcurrentEngine, site: str) -> None:
    """Returns when the site is at nothing any more."""
    waiting = threading.Event()
    while site in engine.busy():
        waiting.wait(0.002)
