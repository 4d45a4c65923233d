"""The one file that knows flwr 1.34 from within: gRPC over TLS, a port for each service. See `dialect.Dialect`.

Only the port for sites is opened to others: who starts runs, and who attaches to them, is on the coordinator's own machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fivefold.engines.flower.dialect import Addresses
from fivefold.engines.flower.wire import Seen

PORTS = 3
SECONDS = 60.0
"""After which a call is given up."""
LOOPBACK = "127.0.0.1"

T = TypeVar("T")


class Client:
    """A gRPC stub with the channel below it."""

    def __init__(self, stub: Any, channel: Any) -> None:
        self._stub, self._channel = stub, channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()


class Runtime(Client):
    """A run's client, which asks who is there elsewhere: `GetNodes` of 1.34 knows no signs of life."""

    def __init__(self, stub: Any, channel: Any, control: Client) -> None:
        super().__init__(stub, channel)
        self.control = control

    def close(self) -> None:
        super().close()
        self.control.close()


def options(host: str, ports: list[int], folder: Path) -> tuple[list[str], Addresses]:
    at = Addresses(f"{LOOPBACK if host == '0.0.0.0' else host}:{ports[0]}", *(f"{LOOPBACK}:{port}" for port in ports[1:]))
    words = ["--fleet-api-address", f"{host}:{ports[0]}", "--control-api-address", at.control]
    words += ["--serverappio-api-address", at.runtime, "--appio-ssl-ca-certfile", str(folder / "ca.pem")]
    words += ["--appio-ssl-certfile", str(folder / "server.pem"), "--appio-ssl-keyfile", str(folder / "server.key")]
    return words, at


def fleet(address: str, authority: bytes, private_key: Any) -> Client:
    from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
    from flwr.proto.fleet_pb2_grpc import FleetStub

    channel = _channel(address, authority, "SuperNode", NodeAuthClientInterceptor(private_key, private_key.public_key()))
    return Client(FleetStub(channel), channel)


def control(at: Addresses, authority: bytes) -> Client:
    from flwr.proto.control_pb2_grpc import ControlStub

    channel = _channel(at.control, authority, "flwr-cli")
    return Client(ControlStub(channel), channel)


def registration(public: bytes, name: str) -> Any:
    """1.34 knows no names."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    return RegisterNodeRequest(public_key=public)


def runtime(at: Addresses, authority: bytes, token: str) -> Client:
    from flwr.proto.runtime_pb2_grpc import RuntimeStub
    from flwr.supercore.interceptors import RuntimeTokenClientInterceptor

    channel = _channel(at.runtime, authority, "flwr-serverapp", RuntimeTokenClientInterceptor(token=token))
    return Runtime(RuntimeStub(channel), channel, control(at, authority))


def acquire(at: Addresses, authority: bytes, secret: bytes, run: int) -> str:
    from flwr.proto import runtime_pb2 as asked
    from flwr.proto.runtime_pb2_grpc import RuntimeStub
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import SuperExecAuthClientInterceptor

    methods = {f"/flwr.proto.Runtime/{name}" for name in ("PullPendingTasks", "ClaimTask")}
    own = SuperExecAuthClientInterceptor(master_secret=secret, protected_methods=methods)
    channel = _channel(at.runtime, authority, "SuperExec", own)
    with Client(RuntimeStub(channel), channel) as client:
        for task in call(client.PullPendingTasks, asked.PullPendingTasksRequest()).tasks:
            if task.run_id == run and task.type == TaskType.SERVER_APP:
                return str(call(client.ClaimTask, asked.ClaimTaskRequest(task_id=task.task_id)).token)
    return ""


def nodes(client: Runtime) -> list[Seen]:
    from flwr.proto.control_pb2 import ListNodesRequest
    from flwr.supercore.constant import NodeStatus

    said = call(client.control.ListNodes, ListNodesRequest()).nodes_info
    return [Seen(int(n.node_id), float(n.online_until)) for n in said if n.status == NodeStatus.ONLINE]


def call(method: Callable[..., T], request: Any) -> T:
    import grpc

    lost = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED
    try:
        return method(request, timeout=SECONDS)
    except grpc.RpcError as error:
        if error.code() in lost:
            raise ConnectionError(f"the SuperLink does not answer: {error.code().name}") from None
        raise PermissionError(f"the SuperLink says {error.code().name}: {error.details()[:300]}") from None
    except ValueError as error:  # the channel was closed meanwhile
        raise ConnectionError(f"the SuperLink does not answer: {type(error).__name__}") from None


def alone() -> None:
    """Nothing is wanted."""


def _channel(address: str, authority: bytes, component: str, *own: Any) -> Any:
    from flwr.supercore.grpc import create_channel
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor

    interceptors = [RuntimeVersionClientInterceptor(component_name=component), *own]
    return create_channel(server_address=address, insecure=False, root_certificates=authority, interceptors=interceptors)
