"""Frames over pipes, for tests whose sites are other processes; and such a process, which plays the sites of a `Bench`.

python -m tests.site.pipes FOLDER SITES LENGTH
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from fivefold.privacy.secagg.ring import RING32
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Roster
from tests.site.secure_sum_bench import Bench


def send(pipe: BinaryIO, data: bytes) -> None:
    pipe.write(len(data).to_bytes(8, "big"))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes | None:
    """The next frame; None at the end."""
    head = pipe.read(8)
    return pipe.read(int.from_bytes(head, "big")) if len(head) == 8 else None


class SitesElsewhere:
    """An engine whose sites live in one other process, so that what this one holds is the coordinator's alone."""

    def __init__(self, folder: Path, sites: int, length: int) -> None:
        words = [sys.executable, "-m", __spec__.name, str(folder), str(sites), str(length)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        names, keys = decode(self._receive())
        self.roster = Roster(names, keys)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        assert self.process.stdin is not None
        for name in requests:
            send(self.process.stdin, name.encode())
            send(self.process.stdin, requests[name])
            yield name, self._receive()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0
        self.process.stdout.close()

    def _receive(self) -> bytes:
        assert self.process.stdout is not None
        frame = receive(self.process.stdout)
        assert frame is not None
        return frame


def serve(folder: Path, sites: int, length: int) -> None:
    bench = Bench(folder, sites, ring=RING32, length=length)
    send(sys.stdout.buffer, encode((bench.roster.names, bench.roster.keys)))
    while (name := receive(sys.stdin.buffer)) is not None:
        request = receive(sys.stdin.buffer)
        assert request is not None
        send(sys.stdout.buffer, bench.reply(name.decode(), request))
        bench.wire.clear()
    bench.stop()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
