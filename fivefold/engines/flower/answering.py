"""The warm child of a site's process: it has the rows and no network, and its parent has the network and no rows.

Parent and child speak over two pipes, in frames of eight bytes of length and a CBOR mapping. The child ends with its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fivefold.engines.flower import wire
from fivefold.engines.flower.foreign_app import APPS
from fivefold.engines.flower.frames import read_frame, write_frame
from fivefold.engines.flower.superlink import environment
from fivefold.errors import EngineProblem, FivefoldError, ProtocolViolation, StorageFull
from fivefold.governance.safe_settings import SURROUNDINGS
from fivefold.protocol.encoding import decode, encode
from fivefold.site.folder import SiteFolder, opened
from fivefold.site.node import Node


class Answering:
    """The parent's end. A child that died is started anew; the question that it died of is not answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child = self._start()

    def answer(self, request: bytes) -> tuple[bytes, int]:
        """The reply (empty where the child died or the request was none), and how many sites were asked with this one."""
        said = self._ask({"do": "answer", "request": request})
        return (bytes(said["reply"]), int(said["asked"])) if said else (b"", 1)

    def foreign(self, facts: Mapping[str, Any]) -> None:
        """Have it written down that something arrived that is not for a Fivefold site."""
        self._ask({"do": "foreign", "facts": dict(facts)})

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        out, back = self._child.stdin, self._child.stdout
        assert out is not None
        assert back is not None
        try:
            write_frame(out, encode(question))
            said = read_frame(back)
        except OSError:
            said = None
        if said is None:
            self._child.kill()
            self._child.wait()
            self._child = self._start()
            return {}
        return dict(decode(said))

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fivefold.engines.flower.answering", str(self.folder)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        assert child.stdout is not None
        ready = read_frame(child.stdout)
        if ready is None:
            raise EngineProblem("the site's answering process did not start", help="What it said stands above.")
        said = decode(ready)
        if "message" in said:
            child.wait()
            raise EngineProblem(said["message"], help=said["help"])
        return child


def serve(folder: SiteFolder, source: IO[bytes], sink: IO[bytes]) -> None:
    """The child's life: question after question until the pipe ends. Where the log cannot be written, nothing is said."""
    node = Node(folder, around=SURROUNDINGS["flower"])
    while (frame := read_frame(source)) is not None:
        asked, said = decode(frame), dict[str, Any]()
        try:
            if asked["do"] == "foreign":
                with folder.audit() as log:
                    log.write("foreign message refused", **asked["facts"])
            else:
                reply, peers = answered(node, folder, bytes(asked["request"]))
                said = {"reply": reply, "asked": peers}
        except StorageFull as error:
            print(f"{error.message}; this site answers again when there is room", file=sys.stderr)
            said = {"reply": b"", "asked": 1}
        write_frame(sink, encode(said))
    node.close()


def answered(node: Node, folder: SiteFolder, data: bytes) -> tuple[bytes, int]:
    """A signed reply to a request, and how many sites were asked with this one.

    A request that is malformed, or speaks another version, is refused before anything of it is looked at.
    """
    try:
        request = wire.read_request(data, node.me)
    except ProtocolViolation as error:
        with folder.audit() as log:
            log.write("refused", trip="connection", **error.public())
        return wire.other_version(node.me), 1
    except FivefoldError as error:
        with folder.audit() as log:
            log.write("foreign message refused", **error.public())
        return b"", 1
    answer = node.answer(request.data) if request.data is not None else b""
    return wire.reply(node.me, folder.node_key(), request.nonce, answer), request.asked


def main() -> None:
    """Take the pipes for this alone (whatever prints goes to stderr), give up the network, answer."""
    from fivefold.engines.flower.isolation import leave_network

    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        folder = opened(Path(sys.argv[1]))
        os.environ.setdefault(APPS, str(folder.path.resolve() / "apps"))
        how = leave_network()
        with folder.audit() as log:
            log.write("answering", network=f"none ({how})")
    except FivefoldError as error:
        write_frame(sink, encode({"message": error.message, "help": error.hint}))
        return
    write_frame(sink, encode({"network": how}))
    serve(folder, source, sink)


if __name__ == "__main__":
    main()
