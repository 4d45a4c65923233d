"""What the study says about slow sites, kept: when a trip need not wait any longer.

A site that was not waited for is busy with what it was asked then. It goes on being asked, and no trip waits for it until it is
done with that. An engine that cannot end a trip early is let to wait for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from fivefold.protocol.messages import Names
from fivefold.study.definition import Stragglers

Clock = Callable[[], float]


@runtime_checkable
class Patient(Protocol):
    """An engine whose trips can be ended early."""

    def exchange_until(self, requests: Mapping[str, bytes], enough: Callable[[], bool]) -> Iterator[tuple[str, bytes]]:
        """As `exchange`; but as soon as `enough` holds, which is asked again and again, what has not come is left out."""
        ...

    def busy(self) -> frozenset[str]:
        """Sites that are still at what they were asked in a trip before."""
        ...


class Patience:
    """`quorum`: how many sites suffice where the study does not say. `clock`: seconds."""

    def __init__(self, stragglers: Stragglers, quorum: int, engine: Patient, clock: Clock = time.monotonic) -> None:
        self._it, self._quorum, self._engine, self._clock = stragglers, stragglers.quorum or quorum, engine, clock
        self._wanted: Names = ()
        self._asking = self._counts = False

    def about(self, wanted: Iterable[str], *, asking: bool, counts: bool) -> None:
        """What the next trip is for: the sites that it needs, whether it asks the round's question, and whether a quorum of
        them has to answer (to open a run it has not). Others may be asked on the way, such as sites that come back."""
        self._wanted, self._asking, self._counts = tuple(wanted), asking, counts

    def refused(self, site: str) -> None:
        """A refusal is an answer, but counts toward no quorum."""
        self._good.discard(site)

    def behind(self) -> frozenset[str]:
        """Sites that were not waited for, and are not done."""
        return self._engine.busy()

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """One trip, which ends when the policy says so."""
        self._asked = frozenset(requests)
        self._heard, self._good, self._start = set[str](), set[str](), self._clock()
        for site, reply in self._engine.exchange_until(requests, self._enough):
            self._heard.add(site)
            self._good.add(site)
            yield site, reply

    def _enough(self) -> bool:
        wanted = self._asked & set(self._wanted)
        if self._it.policy == "wait":  # but nobody is waited for to end the run who is computing for a buffer
            return not self._counts and self._asked - self._engine.busy() <= self._heard
        over = self._it.deadline is not None and self._clock() - self._start >= self._it.deadline
        over = over or self._asked - self._engine.busy() <= self._heard
        if wanted <= self._heard:  # whoever else is asked only comes back
            return over
        if self._counts and len(wanted & self._good) < min(self._quorum, len(wanted)):
            return False
        return over or (self._asking and self._it.policy == "drop")
