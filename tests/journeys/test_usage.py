"""What a run used of each site's machine is counted at the site, to the byte, and stands in its own log at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from fivefold.cli.main import run as call
from fivefold.engines.local import LocalEngine
from fivefold.protocol import messages as m
from fivefold.protocol.messages import COORDINATOR, Envelope, Place
from fivefold.records.audit import entries
from fivefold.site.folder import opened
from fivefold.site.node import Node
from fivefold.site.usage import Meter, read_usage, runs_of
from tests.journeys.hostile import SITES, Consortium
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them


class Weighing:
    """An engine that weighs what it carries, by site; and what of it the trip that closes the run has."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.trips, self.there, self.back = Counter[str](), Counter[str](), Counter[str]()
        self.closing: dict[str, tuple[int, int]] = {}

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        for name, reply in self.engine.exchange(requests):
            self.trips[name] += 1
            self.there[name] += len(requests[name])
            self.back[name] += len(reply)
            if Envelope.decode(requests[name]).kind == m.Close.kind:
                self.closing[name] = (len(requests[name]), len(reply))
            yield name, reply

    def close(self) -> None:
        self.engine.close()


def test_each_byte_and_trip_is_counted_and_in_the_sites_own_log(them: Consortium, capsys: pytest.CaptureFixture[str]) -> None:
    weighed = Weighing(them.engine)
    them.run(weighed)
    run = (them.out / "run0" / "run.id").read_text()
    for name in SITES:
        site = opened(them.out / "sites" / name)
        (one,) = runs_of(site)
        assert (one.run, one.study, one.title, one.closed) == (run, them.study.digest, them.study.study.title, True)
        used = one.usage
        assert (used.trips, used.received, used.sent) == (weighed.trips[name], weighed.there[name], weighed.back[name])
        assert used.seconds > 0
        assert used.first <= used.last
        (said,) = [e.facts["used"] for e in entries(site.state / "audit.jsonl") if e.event == "close"]
        last = weighed.closing[name]
        assert said["trips"] == used.trips - 1
        assert (said["received"], said["sent"]) == (used.received - last[0], used.sent - last[1])
    capsys.readouterr()
    assert call(["site", "usage", "--site", str(them.out / "sites" / "elm"), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["trips"], shown["received"], shown["closed"]) == (weighed.trips["elm"], weighed.there["elm"], True)
    assert call(["site", "usage", "--site", str(them.out / "sites" / "elm")]) == 0
    assert f"{weighed.there['elm']:,}" in capsys.readouterr().out


def test_a_node_that_starts_anew_goes_on_counting_and_strangers_count_for_nobody(them: Consortium) -> None:
    them.run(them.engine)
    site = opened(them.out / "sites" / "elm")
    (before,) = runs_of(site)
    assert Meter(site.state / "runs").of(before.run) == before.usage
    again = Node(site)
    for run, counted in ((before.run, True), ("neverseen", False), ("../x", False), ("", False)):
        request = Envelope(Place(them.study.digest, run, 1, 1), "enrol", COORDINATOR, b"").encode()
        known = read_usage(site.state / "runs" / before.run)
        reply = again.answer(request)
        after = read_usage(site.state / "runs" / before.run)
        if counted:
            assert (after.trips, after.received, after.sent) == (
                known.trips + 1, known.received + len(request), known.sent + len(reply),
            )  # fmt: skip
        else:
            assert after == known
    again.close()
    assert [one.run for one in runs_of(site)] == [before.run]
