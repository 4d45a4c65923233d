"""What FLARE loads at both ends: a controller that carries requests, and an executor that hands them to the site's own node.

Only FLARE imports this module. Each site installs it with its Fivefold; a job names the classes and cannot change them. Where a
site's folder lies is that site's own setting (`FIVEFOLD_SITE_FOLDER`, or `FIVEFOLD_SITES` with a folder for each client), never
the job's.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.controller_spec import ClientTask, SendOrder, Task
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from fivefold.coordinator.rounds import Progress
from fivefold.coordinator.session import run
from fivefold.engines.flare.job import DEADLINE_SECONDS, STUDY_FILE, TASK, site_folder
from fivefold.engines.flare.relay import ADDRESS, connected, serve
from fivefold.errors import FivefoldError
from fivefold.governance.safe_settings import SURROUNDINGS
from fivefold.site.folder import opened
from fivefold.site.node import Node
from fivefold.study.digest import load_signed

CHECK_SECONDS = 0.02


class StudyController(Controller):  # type: ignore[misc]  # nvflare has no types
    """Runs the study on the server, or relays for a coordinator's process that has left its address in the environment."""

    def __init__(self, deadline: int = DEADLINE_SECONDS) -> None:
        super().__init__(task_check_period=CHECK_SECONDS)
        self.deadline = deadline

    def start_controller(self, fl_ctx: FLContext) -> None:
        """FLARE asks for it; nothing is to be prepared."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """FLARE asks for it; nothing is held open."""

    def process_result_of_unknown_task(self, *_: Any) -> None:
        """A reply after its deadline: the site was absent from that trip."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        def exchange(requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
            return self._exchange(requests, fl_ctx, abort_signal)

        if ADDRESS in os.environ:
            with connected(os.environ[ADDRESS]) as connection:
                serve(connection, exchange)
            return
        workspace, job = fl_ctx.get_engine().get_workspace(), fl_ctx.get_job_id()
        found = load_signed(Path(workspace.get_app_config_dir(job)) / STUDY_FILE)
        folder = Path(workspace.get_run_dir(job)) / "fivefold"

        def tell(at: Progress) -> None:
            self.log_info(fl_ctx, f"round {at.round}, {at.analysis}: {at.answered} of {at.sites} sites")

        try:
            run(found, _Engine(exchange), folder, tell=tell, engine_name="flare", resume=(folder / ".lock").exists())
        except FivefoldError as error:
            self.system_panic(f"{error.message}. {error.hint}", fl_ctx)
            return
        self.log_info(fl_ctx, f"Run folder: {folder}")

    def _exchange(self, requests: Mapping[str, bytes], fl_ctx: FLContext, abort: Signal) -> Iterator[tuple[str, bytes]]:
        """One task for each site; replies as they come. A site that does not answer before the deadline is left out."""
        replies: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        waiting = set(requests)
        for name in requests:
            data = Shareable({"request": requests[name]})
            task = Task(TASK, data, timeout=self.deadline, result_received_cb=_into(replies), task_done_cb=_done(replies, name))
            self.send(task, fl_ctx, targets=[name], send_order=SendOrder.SEQUENTIAL)
        end = time.monotonic() + self.deadline
        while waiting and not abort.triggered and time.monotonic() < end:
            try:
                name, reply = replies.get(timeout=1.0)
            except queue.Empty:
                continue
            if name in waiting:
                waiting.remove(name)
                if reply is not None:
                    yield name, reply


class _Engine:
    def __init__(self, exchange: Callable[[Mapping[str, bytes]], Iterator[tuple[str, bytes]]]) -> None:
        self.exchange = exchange


def _into(replies: queue.SimpleQueue[tuple[str, bytes | None]]) -> Callable[[ClientTask, FLContext], None]:
    def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
        result = client_task.result
        reply = result.get("reply") if isinstance(result, Shareable) and result.get_return_code() == ReturnCode.OK else None
        replies.put((client_task.client.name, bytes(reply) if isinstance(reply, (bytes, bytearray)) else None))
        client_task.result = None

    return received


def _done(replies: queue.SimpleQueue[tuple[str, bytes | None]], name: str) -> Callable[[Task, FLContext], None]:
    def done(task: Task, fl_ctx: FLContext) -> None:
        replies.put((name, None))  # after a reply this changes nothing

    return done


class SiteExecutor(Executor):  # type: ignore[misc]  # nvflare has no types
    """Hands each request to this site's node, which verifies, judges and answers; FLARE sees bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._node: Node | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        request = shareable.get("request")
        if task_name != TASK or not isinstance(request, (bytes, bytearray)):
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if self._node is None:
            try:
                place = site_folder(fl_ctx.get_identity_name(), os.environ)
                self._node = Node(opened(place), around=SURROUNDINGS["flare"])
            except FivefoldError as error:
                self.log_error(fl_ctx, f"{error.message}. {error.hint}")
                return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        reply = make_reply(ReturnCode.OK)
        reply["reply"] = self._node.answer(bytes(request))
        return reply
