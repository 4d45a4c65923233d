"""A coordinator that stops in a trip of the first two rounds and comes back, while the sites stay as they were: its
next attempt meets sites that have answered a part of the last one, and the result is that of a run without a stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from examples import prepare
from fivefold.coordinator import session
from fivefold.coordinator.rounds import Engine
from fivefold.records.audit import entries
from fivefold.results.write import comparable
from tests.journeys.consortium import alone, approve_anew, engine, sign_anew, signed

TRIPS = ("open", "enrol", "share", "ask", "survivors", "unmask", "ask-2", "survivors-2", "unmask-2")
STOPS = (("share", 2), ("ask", 2), ("survivors", 5), ("unmask", 2), ("ask-2", 5), ("survivors-2", 2), ("unmask-2", 5))
"""Trip, and how many of its replies were heard."""


class Stopped(Exception):
    """What ends a coordinator here."""


class Stopping:
    """Carries messages until a trip in which the coordinator stops, with some replies of it heard."""

    def __init__(self, engine: Engine, trip: int, heard: int) -> None:
        self.engine, self.trip, self.heard, self.number = engine, trip, heard, 0

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        self.number += 1
        replies = list(self.engine.exchange(requests))
        for number, reply in enumerate(replies):
            if self.number == self.trip and number == self.heard:
                raise Stopped
            yield reply
        if self.number == self.trip:
            raise Stopped


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The breast study with its logistic model alone."""
    out = tmp_path_factory.mktemp("returns") / "breast"
    prepare.prepare("breast", out)
    sign_anew(out, alone(out, "malignancy"))
    approve_anew(out)
    return out


def run(out: Path, over: Engine, name: str, *, resume: bool = False) -> None:
    session.run(signed(out), over, out / name, tell=lambda _: None, engine_name="local", resume=resume)


def test_it_goes_on_with_sites_that_remember_the_attempt_before(breast: Path) -> None:
    with closing(engine(breast)) as sites:
        run(breast, sites, "whole")
    for trip, heard in STOPS:
        with closing(engine(breast)) as sites:
            with pytest.raises(Stopped):
                run(breast, Stopping(sites, 1 + TRIPS.index(trip), heard), trip)
            run(breast, sites, trip, resume=True)
        assert comparable(breast / trip) == comparable(breast / "whole"), trip
        rounds = [e.facts for e in entries(breast / trip / "audit.jsonl") if e.event == "aggregate"]
        assert not any(r["dropped"] for r in rounds), trip
