"""Bytes as Flower messages, and back; the same in every flwr that is admitted.

A SuperLink is one process, and each call costs it some milliseconds; so calls are saved. Up to 1 MiB a message's bytes travel
in the message itself, as before Flower had objects: two calls a site and trip. Larger ones are objects of 4 MiB under a
`RecordDict`; they are confirmed when they have arrived, so that the SuperLink lets go of them. An object that is asked for
before it has arrived is asked for again at once, where Flower waits for 1 s (`PULL_INITIAL_BACKOFF`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fivefold.engines.flower.wire import KIND

INLINE, CHUNK, MOST = 1 << 20, 4 << 20, 4 << 30
WAIT, WAIT_MOST, WAITS_IN_ALL = 0.004, 0.1, 60.0

Call = Callable[[Callable[[Any], Any], Any], Any]


@dataclass(frozen=True)
class Party:
    """One end of a Flower run: a client, how it calls, and Flower's `Node` that it is."""

    client: Any
    call: Call
    node: Any


def packed(payload: bytes) -> tuple[Any, Any, dict[str, bytes]]:
    """The content of a message, its object tree, and the objects' bytes by id (none where the content has it all)."""
    from flwr.app import ConfigRecord, RecordDict
    from flwr.proto.message_pb2 import ObjectTree
    from flwr.supercore.inflatable.inflatable_object import get_object_tree

    if len(payload) <= INLINE:
        content = RecordDict({"fivefold": ConfigRecord({"bytes": payload})})
        return content, ObjectTree(object_id=hashlib.sha256(payload).hexdigest()), {}
    pieces: dict[str, Any] = {
        f"{at:08d}": ConfigRecord({"bytes": payload[at * CHUNK : (at + 1) * CHUNK]}) for at in range(-(-len(payload) // CHUNK))
    }
    whole = RecordDict(pieces)
    return RecordDict(), get_object_tree(whole), {one.object_id: one.deflate() for one in (*pieces.values(), whole)}


def message_of(
    content: Any, *, run: int, id: str, sender: int, receiver: int, reply_to: str, seconds: float, error: Any = None
) -> Any:
    """Flower's message, as protobuf."""
    from flwr.app import Metadata
    from flwr.app.message import make_message
    from flwr.common.serde import message_to_proto

    about = Metadata(
        run_id=run,
        message_id=id,
        src_node_id=sender,
        dst_node_id=receiver,
        reply_to_message_id=reply_to,
        group_id="",
        created_at=time.time(),
        ttl=seconds,
        message_type=KIND,
    )
    return message_to_proto(make_message(metadata=about, content=content, error=error))


def read(party: Party, message: Any, tree: Any) -> bytes:
    """The bytes of a message: those in it, or its objects. Empty where it is none of ours."""
    inline = _inline(message)
    if inline is not None:
        return inline
    payload = _pulled(party, int(message.metadata.run_id), tree)
    _confirm(party, int(message.metadata.run_id), str(message.metadata.message_id))
    return payload


def push_objects(party: Party, run: int, said: Any, contents: Mapping[str, bytes]) -> None:
    """Those objects that the SuperLink `said` that it lacks."""
    from flwr.proto.message_pb2 import PushObjectRequest

    for id in set(said.objects_to_push) & set(contents):
        party.call(
            party.client.PushObject,
            PushObjectRequest(
                node=party.node, run_id=run, object_id=id, object_content=contents[id], session_id=said.session_id
            ),
        )


def _inline(message: Any) -> bytes | None:
    """The bytes that stand in the message itself."""
    if not message.has_content() or "fivefold" not in message.content:
        return None
    data = message.content["fivefold"].get("bytes")
    return data if isinstance(data, bytes) else b""


def _confirm(party: Party, run: int, id: str) -> None:
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest

    request = ConfirmMessageReceivedRequest(node=party.node, run_id=run, message_object_id=id)
    party.call(party.client.ConfirmMessageReceived, request)


def _pulled(party: Party, run: int, tree: Any) -> bytes:
    """The bytes of a message. An object that is not there yet is asked for again, soon."""
    from flwr.proto.message_pb2 import PullObjectRequest
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    contents: dict[str, bytes] = {}
    size, end = 0, time.monotonic() + WAITS_IN_ALL
    for one in iterate_object_tree(tree):
        wait = WAIT
        while True:
            said = party.call(party.client.PullObject, PullObjectRequest(node=party.node, run_id=run, object_id=one.object_id))
            if said.object_found and said.object_available:
                break
            if not said.object_found or time.monotonic() > end:
                raise ConnectionError("a part of a message did not arrive")
            time.sleep(wait)
            wait = min(2 * wait, WAIT_MOST)
        size += len(said.object_content)
        if size > MOST:
            raise ConnectionError("a message is larger than any that Fivefold sends")
        contents[one.object_id] = said.object_content
    try:
        whole: Any = inflate_object_from_contents(tree.object_id, contents)
        return b"".join(whole[name]["bytes"] for name in sorted(whole))
    except Exception:  # whatever Flower's reader says of bytes that are none of ours
        return b""
