"""A run outlives its connection: where the SuperLink is lost, it is sought again, and the run goes on from its own journal.

A Flower run is only a connection. So nothing of a lost one is kept: the run is resumed as after a crash of the coordinator,
over a new one, and rounds that were summed are not asked again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from fivefold.coordinator.rounds import Engine
from fivefold.engines.flower.grid import LOST
from fivefold.errors import EngineProblem, SourceNotFound

T = TypeVar("T")
E = TypeVar("E", bound=Engine)
FIRST, MOST = 1.0, 30.0
"""Seconds to wait before the second try, and at most."""


def lasting(
    connect: Callable[[], AbstractContextManager[E]],
    work: Callable[[E, bool], T],
    *,
    patience: float,
    tell: Callable[[str], None],
    wait: Callable[[float], None] = time.sleep,
) -> T:
    """What `work(engine, again)` gives, `again` where it goes on over a new connection. `patience`: seconds of waiting for a
    lost SuperLink, over the whole run. Raises `EngineProblem` where they are used up, what `connect` raises at first."""
    lost: EngineProblem | None = None
    left, next = patience, FIRST
    while True:
        try:
            with connect() as engine:
                next = FIRST
                return work(engine, lost is not None)
        except (EngineProblem, SourceNotFound) as error:
            if isinstance(error, EngineProblem) and error.rule == LOST:
                lost = error
            elif lost is None:
                raise
            if not left > 0:
                raise lost from None
            pause = min(next * random.uniform(0.5, 1.0), left)
            tell(f"the SuperLink does not answer; trying again in {pause:.0f} s, for {left:.0f} s more")
            wait(pause)
            left, next = left - max(pause, 0.1), min(2 * next, MOST)
