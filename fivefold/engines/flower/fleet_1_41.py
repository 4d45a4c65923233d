"""The one file that knows flwr 1.41 from within: a site's Fleet connection, the coordinator's Runtime connection, registration.

Since 1.41 everything travels as protobuf over HTTPS. Flower's own loops are not used: its SuperNode sleeps 3 s between polls
and starts a process for each message, its Grid sleeps 3 s between polls, and an object that is asked for before it has arrived
is asked for again only after 1 s (`PULL_INITIAL_BACKOFF`): these are the trips of one and two seconds. The bundle that a run
brings (`get_fab`) is never asked for.

A SuperLink is one process, and each call costs it some milliseconds; so calls are saved. Up to 1 MiB a message's bytes travel
in the message itself, as before Flower had objects: two calls a site and trip. Larger ones are objects of 4 MiB under a
`RecordDict`; they are confirmed when they have arrived, so that the SuperLink lets go of them.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fivefold.engines.flower.wire import KIND, Answer, Letter, Seen

INLINE, CHUNK, MOST = 1 << 20, 4 << 20, 4 << 30
WAIT, WAIT_MOST, WAITS_IN_ALL = 0.004, 0.1, 60.0
BEAT_BUSY, BEAT_IDLE = 10.0, 30.0
"""The interval that a sign of life announces, seconds: the shortest that a SuperLink admits, and Flower's own. A node is held
to be there for twice as long."""

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

T = TypeVar("T")


class Fleet141:
    """A site's connection. See `wire.Fleet`."""

    def __init__(self, address: str, root_certificates: Path, private_key: Any) -> None:
        from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        self._public = public_key_to_bytes(private_key.public_key())
        self._client: Any = FleetHttpClient.from_server_address(
            address,
            False,
            root_certificates.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(private_key, private_key.public_key()),
            ],
        )
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
                _call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=last))
        said = _call(self._client.ActivateNode, ActivateNodeRequest(public_key=self._public, heartbeat_interval=BEAT_IDLE))
        self._node = Node(node_id=said.node_id)
        return int(said.node_id)

    def receive(self) -> Letter | None:
        from flwr.common.serde import message_from_proto
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        said = _call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not said.messages_list:
            return None
        message = message_from_proto(said.messages_list[0])
        about = message.metadata
        run, kind = int(about.run_id), str(about.message_type)
        payload = b""
        if kind == KIND:  # anything else is not even fetched
            payload = self._read(message, said.message_object_trees[0])
        return Letter(run, str(about.message_id), kind, int(about.src_node_id), payload, message)

    def _read(self, message: Any, tree: Any) -> bytes:
        inline = _inline(message)
        if inline is not None:
            return inline
        run, id = int(message.metadata.run_id), str(message.metadata.message_id)
        payload = _pulled(self._client.PullObject, self._node, run, tree)
        _confirm(self._client.ConfirmMessageReceived, self._node, run, id)
        return payload

    def reply(self, letter: Letter, payload: bytes) -> None:
        self._send(letter, payload, None)

    def decline(self, letter: Letter, reason: str) -> None:
        from flwr.app.error import Error

        self._send(letter, b"", Error(code=0, reason=reason))

    def alive(self, busy: bool) -> None:
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        _call(
            self._client.SendNodeHeartbeat,
            SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=BEAT_BUSY if busy else BEAT_IDLE),
        )

    def close(self) -> None:
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        try:
            if self._node is not None:
                _call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=self._node.node_id))
        except (ConnectionError, PermissionError):
            pass  # it notices by itself
        finally:
            self._client.close()

    def _send(self, letter: Letter, payload: bytes, error: Any) -> None:
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest

        about = letter.raw.metadata
        content, tree, parts = _packed(payload or letter.id.encode())
        message = _message(
            None if error else content,
            run=letter.run,
            id=tree.object_id,
            sender=self._node.node_id,
            receiver=letter.sender,
            reply_to=letter.id,
            seconds=max(0.001, float(about.created_at + about.ttl - time.time()) - 0.001),  # not beyond its message
            error=error,
        )
        said = _call(
            self._client.PushMessages,
            PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(message)],
                message_object_trees=[tree],
                clientapp_runtime_list=[0.0],
            ),
        )
        _push(self._client.PushObject, self._node, letter.run, said, parts)


class Link141:
    """The coordinator's connection: it starts a Flower run and takes the place of its ServerApp. See `wire.Link`.

    `secret`: what the SuperLink was started with (`--superexec-auth-secret-file`), so that nobody else takes that place.
    """

    def __init__(self, address: str, root_certificates: Path, secret: bytes) -> None:
        from flwr.common.constant import SUPERLINK_NODE_ID
        from flwr.proto.node_pb2 import Node
        from flwr.proto.runtime_pb2 import PullTaskInputRequest
        from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
        from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
        from flwr.supercore.runtime import RuntimeHttpClient

        authority = root_certificates.read_bytes()
        self._run = _start_run(address, authority)
        token = _acquire(address, authority, secret, self._run)
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._client: Any = RuntimeHttpClient.from_server_address(
            address,
            False,
            authority,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(token=token),
            ],
        )
        _call(self._client.PullTaskInput, PullTaskInputRequest())
        self._heart = HeartbeatSender(make_task_heartbeat_fn_http(self._client))
        self._heart.start()

    def nodes(self) -> list[Seen]:
        from flwr.proto.runtime_pb2 import GetNodesRequest

        said = _call(self._client.GetNodes, GetNodesRequest())
        return [Seen(int(n.node_id), float(n.online_until)) for n in said.nodes]

    def push(self, payloads: Mapping[int, bytes], seconds: float) -> dict[str, int]:
        """Message id → node."""
        from flwr.common.serde import message_to_proto
        from flwr.proto.runtime_pb2 import PushAppMessagesRequest

        messages, trees, ids = [], [], {}
        contents: dict[str, bytes] = {}
        for node, payload in payloads.items():
            content, tree, parts = _packed(payload)
            message = _message(
                content,
                run=self._run,
                id=tree.object_id,
                sender=self._node.node_id,
                receiver=node,
                reply_to="",
                seconds=seconds,
            )
            messages.append(message_to_proto(message))
            trees.append(tree)
            contents |= parts
            ids[tree.object_id] = node
        said = _call(self._client.PushMessages, PushAppMessagesRequest(messages_list=messages, message_object_trees=trees))
        _push(self._client.PushObject, self._node, self._run, said, contents)
        return {i: node for i, node in ids.items() if i in set(said.message_ids)}

    def pull(self, ids: list[str]) -> list[Answer]:
        """What has come back. A message that the SuperLink has given up (its node is gone) is an answer without a payload."""
        from flwr.common.serde import message_from_proto
        from flwr.proto.runtime_pb2 import PullAppMessagesRequest

        try:
            said = _call(self._client.PullMessages, PullAppMessagesRequest(message_ids=ids))
        except PermissionError:  # it fails as a whole where one of the ids is gone
            if len(ids) > 1:
                return [answer for id in ids for answer in self.pull([id])]
            return [Answer(ids[0], 0, None)]
        found = []
        for proto, tree in zip(said.messages_list, said.message_object_trees, strict=True):
            message = message_from_proto(proto)
            about, payload = message.metadata, None
            if not proto.HasField("error"):
                payload = _inline(message)
                if payload is None:
                    payload = _pulled(self._client.PullObject, self._node, self._run, tree)
                    _confirm(self._client.ConfirmMessageReceived, self._node, self._run, str(about.message_id))
            found.append(Answer(str(about.reply_to_message_id), int(about.src_node_id), payload))
        return found

    def close(self) -> None:
        from flwr.common.constant import SubStatus
        from flwr.proto.runtime_pb2 import PushTaskOutputRequest

        self._heart.stop()
        try:
            _call(self._client.PushTaskOutput, PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
        except (ConnectionError, PermissionError):
            pass  # the run lapses by itself
        finally:
            self._client.close()


def register(address: str, root_certificates: Path, public: bytes, name: str) -> bool:
    """Let a node with this connection key (PEM) in; False where it is in already. What `flwr supernode register` does."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    with control(address, root_certificates.read_bytes()) as client:
        try:
            _call(client.RegisterNode, RegisterNodeRequest(public_key=public, name=name))
        except PermissionError as error:
            if "in use" in str(error):
                return False
            raise
    return True


# ---- calls ----------------------------------------------------------------------------------------------------------
def _call(method: Callable[[Any], T], request: Any) -> T:
    """One call; what httpx and Flower raise becomes `ConnectionError` or, where the SuperLink says no, `PermissionError`."""
    import httpx

    try:
        return method(request)
    except httpx.HTTPStatusError as error:
        said = error.response.text[:300]
        if error.response.status_code in (502, 503, 504):
            raise ConnectionError(f"the SuperLink is not ready ({error.response.status_code})") from None
        raise PermissionError(f"the SuperLink says {error.response.status_code}: {said}") from None
    except (httpx.HTTPError, ValueError) as error:
        raise ConnectionError(f"the SuperLink does not answer: {type(error).__name__}") from None


def control(address: str, authority: bytes) -> Any:
    """A client of the SuperLink's Control API, to be used as a context."""
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return ControlHttpClient.from_server_address(
        address, False, authority, interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli")]
    )


def _start_run(address: str, authority: bytes) -> int:
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), SHELL)
    content = bundle.getvalue()
    with control(address, authority) as client:
        said = _call(client.StartRun, StartRunRequest(fab=Fab(content=content)))
    return int(said.run_id)


def _acquire(address: str, authority: bytes, secret: bytes, run: int) -> str:
    """The token of the run's ServerApp task. Runs of others that wait here are taken, and end without being served."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    method = "/flwr.proto.Runtime/AcquireTask"
    with RuntimeHttpClient.from_server_address(
        address,
        False,
        authority,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={method}),
        ],
    ) as client:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            said = _call(client.AcquireTask, AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if said.HasField("task") and said.task.run_id == run and said.token:
                return str(said.token)
            if not said.HasField("task"):
                time.sleep(WAIT)
    raise ConnectionError("the SuperLink did not hand out the run; is it a coordinator's own?")


# ---- messages and objects -------------------------------------------------------------------------------------------
def _packed(payload: bytes) -> tuple[Any, Any, dict[str, bytes]]:
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


def _inline(message: Any) -> bytes | None:
    """The bytes that stand in the message itself."""
    if not message.has_content() or "fivefold" not in message.content:
        return None
    data = message.content["fivefold"].get("bytes")
    return data if isinstance(data, bytes) else b""


def _message(
    content: Any, *, run: int, id: str, sender: int, receiver: int, reply_to: str, seconds: float, error: Any = None
) -> Any:
    from flwr.app import Metadata
    from flwr.app.message import make_message

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
    return make_message(metadata=about, content=content, error=error)


def _confirm(method: Callable[[Any], Any], node: Any, run: int, id: str) -> None:
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest

    _call(method, ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=id))


def _push(method: Callable[[Any], Any], node: Any, run: int, said: Any, contents: Mapping[str, bytes]) -> None:
    from flwr.proto.message_pb2 import PushObjectRequest

    for id in set(said.objects_to_push) & set(contents):
        _call(
            method,
            PushObjectRequest(node=node, run_id=run, object_id=id, object_content=contents[id], session_id=said.session_id),
        )


def _pulled(method: Callable[[Any], Any], node: Any, run: int, tree: Any) -> bytes:
    """The bytes of a message. An object that is not there yet is asked for again, soon."""
    from flwr.proto.message_pb2 import PullObjectRequest
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    contents: dict[str, bytes] = {}
    size, end = 0, time.monotonic() + WAITS_IN_ALL
    for one in iterate_object_tree(tree):
        wait = WAIT
        while True:
            said = _call(method, PullObjectRequest(node=node, run_id=run, object_id=one.object_id))
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
