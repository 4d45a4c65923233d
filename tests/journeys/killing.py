"""A process that dies in the middle of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping

from fivefold.engines.local import LocalEngine


class Killing:
    """An engine in whose exchange number `at` the whole process dies, coordinator and nodes, after `answered` sites."""

    def __init__(self, engine: LocalEngine, at: int, answered: int) -> None:
        self.engine, self.left, self.answered = engine, at, answered

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.left -= 1
        for i, reply in enumerate(self.engine.exchange(requests)):
            if self.left == 0 and i == self.answered:
                os.kill(os.getpid(), signal.SIGKILL)
            yield reply


def killed(run: Callable[[], object]) -> bool:
    """Whether a process of its own that runs this was killed."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
