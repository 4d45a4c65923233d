"""The one file that knows flwr 1.41 from within: protobuf over HTTPS, all services on one port. See `dialect.Dialect`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from fivefold.engines.flower.dialect import Addresses
from fivefold.engines.flower.wire import Seen

PORTS = 1

T = TypeVar("T")


def options(host: str, ports: list[int], folder: Path) -> tuple[list[str], Addresses]:
    address = f"{'127.0.0.1' if host == '0.0.0.0' else host}:{ports[0]}"
    return ["--host", host, "--port", str(ports[0])], Addresses(address, address, address)


def fleet(address: str, authority: bytes, private_key: Any) -> Any:
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    own = NodeAuthHttpInterceptor(private_key, private_key.public_key())
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperNode"), own]
    return FleetHttpClient.from_server_address(address, False, authority, interceptors=interceptors)


def control(at: Addresses, authority: bytes) -> AbstractContextManager[Any]:
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="flwr-cli")]
    client: AbstractContextManager[Any] = ControlHttpClient.from_server_address(
        at.control, False, authority, interceptors=interceptors
    )
    return client


def registration(public: bytes, name: str) -> Any:
    from flwr.proto.control_pb2 import RegisterNodeRequest

    return RegisterNodeRequest(public_key=public, name=name)


def runtime(at: Addresses, authority: bytes, token: str) -> Any:
    from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    version, own = RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"), RuntimeTokenHttpInterceptor(token=token)
    return RuntimeHttpClient.from_server_address(at.runtime, False, authority, interceptors=[version, own])


def acquire(at: Addresses, authority: bytes, secret: bytes, run: int) -> str:
    """Runs of others that wait here are taken, and end without being served."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    own = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"})
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperExec"), own]
    with RuntimeHttpClient.from_server_address(at.runtime, False, authority, interceptors=interceptors) as client:
        while True:
            said = call(client.AcquireTask, AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if not said.HasField("task"):
                return ""
            if said.task.run_id == run and said.token:
                return str(said.token)


def nodes(client: Any) -> list[Seen]:
    from flwr.proto.runtime_pb2 import GetNodesRequest

    return [Seen(int(n.node_id), float(n.online_until)) for n in call(client.GetNodes, GetNodesRequest()).nodes]


def call(method: Callable[[Any], T], request: Any) -> T:
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


def alone() -> None:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
