"""A site's connection to a SuperLink, the coordinator's, and registration, over whatever flwr is installed (`dialect`).

Flower's own loops are not used: its SuperNode sleeps 3 s between polls and starts a process for each message, and its Grid
sleeps 3 s between polls. The bundle that a run brings (`get_fab`) is never asked for.
"""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fivefold.engines.flower.dialect import Addresses, Dialect, dialect
from fivefold.engines.flower.parcels import Party, message_of, packed, push_objects, read
from fivefold.engines.flower.wire import KIND, Answer, Letter, Seen

BEAT_BUSY, BEAT_IDLE = 10.0, 30.0
"""The interval that a site's sign of life announces, seconds: the shortest that a SuperLink admits, and Flower's own. A node is
held to be there for twice as long."""
BEAT_RUN = 15.0
"""Seconds between the signs of life of a run's server side; a SuperLink waits 60."""
ACQUIRE, ACQUIRE_WAIT = 10.0, 0.004

SHELL = """\
[project]
name = "fivefold-shell"
version = "1.0.0"
description = "A connection of a Fivefold coordinator. Nothing in here is run anywhere."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fivefold"

[tool.flwr.app.components]
serverapp = "shell:server"
clientapp = "shell:client"

[tool.flwr.app.config]
"""
"""The app bundle of a run: Flower wants one, sites never fetch it, and the SuperLink starts no process for it."""


class SiteConnection:
    """A site's connection. See `wire.Fleet`."""

    def __init__(self, address: str, root_certificates: Path, private_key: Any) -> None:
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        self._speech = dialect()
        self._public = public_key_to_bytes(private_key.public_key())
        self._client = self._speech.fleet(address, root_certificates.read_bytes(), private_key)
        self._node: Any = None

    def connect(self, last: int = 0) -> int:
        """Show the key; the node id. Raises `PermissionError` where the SuperLink does not know the key.

        `last`: the node id of the connection before. A SuperLink lets no node in that it still holds to be there, and holds one
        that was killed to be there for 20 s: so that one is signed off first.
        """
        from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
        from flwr.proto.node_pb2 import Node

        if last:
            with suppress(PermissionError):  # it is not there any more, or the SuperLink is another
                self._call("DeactivateNode", DeactivateNodeRequest(node_id=last))
        said = self._call("ActivateNode", ActivateNodeRequest(public_key=self._public, heartbeat_interval=BEAT_IDLE))
        self._node = Node(node_id=said.node_id)
        return int(said.node_id)

    def receive(self) -> Letter | None:
        from flwr.common.serde import message_from_proto
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        said = self._call("PullMessages", PullMessagesRequest(node=self._node))
        if not said.messages_list:
            return None
        message = message_from_proto(said.messages_list[0])
        about = message.metadata
        kind, payload = str(about.message_type), b""
        if kind == KIND:  # anything else is not even fetched
            payload = read(self._party(), message, said.message_object_trees[0])
        return Letter(int(about.run_id), str(about.message_id), kind, int(about.src_node_id), payload, message)

    def reply(self, letter: Letter, payload: bytes) -> None:
        self._send(letter, payload, None)

    def decline(self, letter: Letter, reason: str) -> None:
        from flwr.app.error import Error

        self._send(letter, b"", Error(code=0, reason=reason))

    def alive(self, busy: bool) -> None:
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        interval = BEAT_BUSY if busy else BEAT_IDLE
        self._call("SendNodeHeartbeat", SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=interval))

    def close(self) -> None:
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        try:
            if self._node is not None:
                self._call("DeactivateNode", DeactivateNodeRequest(node_id=self._node.node_id))
        except (ConnectionError, PermissionError):
            pass  # it notices by itself
        finally:
            self._client.close()

    def _call(self, name: str, request: Any) -> Any:
        return self._speech.call(getattr(self._client, name), request)

    def _party(self) -> Party:
        return Party(self._client, self._speech.call, self._node)

    def _send(self, letter: Letter, payload: bytes, error: Any) -> None:
        from flwr.proto.fleet_pb2 import PushMessagesRequest

        about = letter.raw.metadata
        content, tree, parts = packed(payload or letter.id.encode())
        message = message_of(
            None if error else content,
            run=letter.run,
            id=tree.object_id,
            sender=self._node.node_id,
            receiver=letter.sender,
            reply_to=letter.id,
            seconds=max(0.001, float(about.created_at + about.ttl - time.time()) - 0.001),  # not beyond its message
            error=error,
        )
        request = PushMessagesRequest(
            node=self._node, messages_list=[message], message_object_trees=[tree], clientapp_runtime_list=[0.0]
        )
        push_objects(self._party(), letter.run, self._call("PushMessages", request), parts)


class RunConnection:
    """The coordinator's connection: it starts a Flower run and takes the place of its ServerApp. See `wire.Link`.

    `secret`: what the SuperLink was started with (`--superexec-auth-secret-file`), so that nobody else takes that place.
    """

    def __init__(self, at: Addresses, root_certificates: Path, secret: bytes) -> None:
        from flwr.common.constant import SUPERLINK_NODE_ID
        from flwr.proto.node_pb2 import Node
        from flwr.proto.runtime_pb2 import PullTaskInputRequest

        self._speech = dialect()
        authority = root_certificates.read_bytes()
        self._run = _start_run(self._speech, at, authority)
        token = _acquire(self._speech, at, authority, secret, self._run)
        self._client = self._speech.runtime(at, authority, token)
        self._party = Party(self._client, self._speech.call, Node(node_id=SUPERLINK_NODE_ID))
        self._call("PullTaskInput", PullTaskInputRequest())
        self._done = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def nodes(self) -> list[Seen]:
        return self._speech.nodes(self._client)

    def push(self, payloads: Mapping[int, bytes], seconds: float) -> dict[str, int]:
        """Message id → node."""
        from flwr.proto.runtime_pb2 import PushAppMessagesRequest

        messages, trees, ids = [], [], {}
        contents: dict[str, bytes] = {}
        for node, payload in payloads.items():
            content, tree, parts = packed(payload)
            messages.append(
                message_of(
                    content,
                    run=self._run,
                    id=tree.object_id,
                    sender=self._party.node.node_id,
                    receiver=node,
                    reply_to="",
                    seconds=seconds,
                )
            )
            trees.append(tree)
            contents |= parts
            ids[tree.object_id] = node
        said = self._call("PushMessages", PushAppMessagesRequest(messages_list=messages, message_object_trees=trees))
        push_objects(self._party, self._run, said, contents)
        return {i: node for i, node in ids.items() if i in set(said.message_ids)}

    def pull(self, ids: list[str]) -> list[Answer]:
        """What has come back. A message that the SuperLink has given up (its node is gone) is an answer without a payload."""
        from flwr.common.serde import message_from_proto
        from flwr.proto.runtime_pb2 import PullAppMessagesRequest

        try:
            said = self._call("PullMessages", PullAppMessagesRequest(message_ids=ids))
        except PermissionError:  # it fails as a whole where one of the ids is gone
            if len(ids) > 1:
                return [answer for id in ids for answer in self.pull([id])]
            return [Answer(ids[0], 0, None)]
        found = []
        for proto, tree in zip(said.messages_list, said.message_object_trees, strict=True):
            message = message_from_proto(proto)
            payload = None if proto.HasField("error") else read(self._party, message, tree)
            found.append(Answer(str(message.metadata.reply_to_message_id), int(message.metadata.src_node_id), payload))
        return found

    def close(self) -> None:
        from flwr.common.constant import SubStatus
        from flwr.proto.runtime_pb2 import PushTaskOutputRequest

        self._done.set()
        self._heart.join()
        try:
            self._call("PushTaskOutput", PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
        except (ConnectionError, PermissionError):
            pass  # the run lapses by itself
        finally:
            self._client.close()

    def _call(self, name: str, request: Any) -> Any:
        return self._speech.call(getattr(self._client, name), request)

    def _beat(self) -> None:
        from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

        while not self._done.wait(BEAT_RUN):
            with suppress(ConnectionError, PermissionError):  # who asks next notices
                self._call("SendTaskHeartbeat", SendTaskHeartbeatRequest())


def register(at: Addresses, root_certificates: Path, public: bytes, name: str) -> bool:
    """Let a node with this connection key (PEM) in; False where it is in already. What `flwr supernode register` does."""
    speech = dialect()
    with speech.control(at, root_certificates.read_bytes()) as client:
        try:
            speech.call(client.RegisterNode, speech.registration(public, name))
        except PermissionError as error:
            if "in use" in str(error):
                return False
            raise
    return True


def _start_run(speech: Dialect, at: Addresses, authority: bytes) -> int:
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), SHELL)
    content = bundle.getvalue()
    with speech.control(at, authority) as client:
        said = speech.call(client.StartRun, StartRunRequest(fab=Fab(content=content)))
    return int(said.run_id)


def _acquire(speech: Dialect, at: Addresses, authority: bytes, secret: bytes, run: int) -> str:
    """The token of the run's ServerApp task."""
    end = time.monotonic() + ACQUIRE
    while time.monotonic() < end:
        token = speech.acquire(at, authority, secret, run)
        if token:
            return token
        time.sleep(ACQUIRE_WAIT)
    raise ConnectionError("the SuperLink did not hand out the run; is it a coordinator's own?")
