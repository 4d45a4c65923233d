"""Between the coordinator's process and a controller inside FLARE: frames of CBOR over a socket on this machine.

The coordinator owns journal, audit log and run folder; a FLARE job is only a connection, and a resumed run opens a new one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from fivefold.errors import EngineFailed
from fivefold.protocol.encoding import decode, encode

ADDRESS = "FIVEFOLD_COORDINATOR"
"""Set for the child process alone: a socket in a folder that only this user can enter."""

Exchange = Callable[[Mapping[str, bytes]], Iterable[tuple[str, bytes]]]


def connected(address: str) -> Connection:
    """FLARE's end of the connection."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    return Connection(client.detach())


def exchange(connection: Connection, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The coordinator's end: send the requests, yield replies as they arrive."""
    try:
        for name in requests:
            connection.send_bytes(encode({"site": name, "request": requests[name]}))
        connection.send_bytes(encode({"end": True}))
        while "end" not in (frame := _frame(connection)):
            yield str(frame["site"]), bytes(frame["reply"])
    except (EOFError, OSError) as error:
        raise EngineFailed(
            "the connection to FLARE was lost", help="Continue with --resume; FLARE's own log says more."
        ) from error


def close(connection: Connection) -> None:
    """Tell the other end that no more requests come."""
    try:
        connection.send_bytes(encode({"close": True}))
    except OSError:
        return  # it went first


def serve(connection: Connection, carry: Exchange) -> None:
    """FLARE's end: carry one batch of requests after the other until the coordinator has no more."""
    while True:
        requests: dict[str, bytes] = {}
        try:
            while "end" not in (frame := _frame(connection)):
                if "close" in frame:
                    return
                requests[str(frame["site"])] = bytes(frame["request"])
        except EOFError:
            return
        for name, reply in carry(requests):
            connection.send_bytes(encode({"site": name, "reply": reply}))
        connection.send_bytes(encode({"end": True}))


def _frame(connection: Connection) -> dict[str, Any]:
    frame = decode(connection.recv_bytes())
    if not isinstance(frame, dict):
        raise EOFError
    return frame
