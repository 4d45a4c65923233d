"""A TCP proxy on loopback that meddles: it cuts, slows or corrupts what passes, and lets it pass again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SLOWER = 0.15
"""Seconds that each piece takes longer."""


class Meddler:
    """Passes bytes on to `target`. `mode`: "pass", "cut" (all is hung up, and nobody let in), "slow", "corrupt" (a bit of each
    piece, both ways)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.mode = "pass"
        self.struck = 0
        """Pieces that were altered or held up, and calls that were hung up."""
        self._open = set[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.mode = "cut"
        for one in list(self._open):
            self.struck += 1
            _hang_up(one)

    def close(self) -> None:
        _hang_up(self._listening)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self.mode == "cut":
                self.struck += 1
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if self.mode == "corrupt":
                    self.struck += 1
                    piece = bytes([*piece[:-1], piece[-1] ^ 1])
                if self.mode == "slow":
                    self.struck += 1
                    threading.Event().wait(SLOWER)
                sink.sendall(piece)
        for one in (source, sink):
            self._open.discard(one)
            _hang_up(one)


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def meddler(target: str) -> Iterator[Meddler]:
    made = Meddler(target)
    try:
        yield made
    finally:
        made.close()
