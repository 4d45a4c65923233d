"""Aggregates of wide models are taken on trust; what can be checked without the updates is checked all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.errors import AggregateFalse
from fivefold.protocol.encoding import encode
from fivefold.protocol.messages import Told
from fivefold.protocol.questions import Field, Sum, site_step
from fivefold.replay.cursor import Asked, Outcome
from fivefold.replay.totals import MODELS, VERIFIABLE, may_be_on_trust, on_trust
from fivefold.site.told import verified
from fivefold.study.definition import Analysis
from tests.site.secure_sum_bench import RUN, Bench

WIDE = MODELS // 16 // 4  # with five sites, beside a count
UPDATE = Field("weights", "update", 1.0, (WIDE,))
UPDATE_ALONE = replace(UPDATE, shape=(4 * WIDE,))
PERSONS = Field("persons", "persons", 100.0)
WEIGHTS = np.resize([0.5, -0.25, 0.125], WIDE)


@site_step("test.train")
def train(table: Any) -> dict[str, Any]:
    return {}


def asked(*fields: Field) -> Asked:
    return Asked(1, Analysis("fit", "test"), "test", Sum(train, fields))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Four of five sites opened round 1."""
    it = Bench(tmp_path, 5)
    it.silent = lambda site, request: site == "site3" and request.kind == "ask"
    it.ask(it.rounds(), 1)
    yield it
    it.stop()


def told(bench: Bench, persons: int = 40, **changes: Any) -> Told:
    totals = encode(({"weights": WEIGHTS, "persons": np.array(persons)},))
    alive = tuple(n for n in bench.names if n != "site3")
    return replace(Told(1, totals, alive, ("site3",), "", b"", b""), **changes)


def judged(bench: Bench, said: Told, site: str = "site0") -> Outcome:
    return verified(said, asked(UPDATE, PERSONS), bench.standings[site], RUN, bench.sites[site].book, 5)


def test_what_is_taken_on_trust_is_public() -> None:
    real = Field("x", "real", 1.0, (VERIFIABLE // 8,))
    assert not on_trust(asked(UPDATE), 16)
    assert on_trust(asked(UPDATE), 17)
    assert on_trust(asked(UPDATE, PERSONS), 4), "beside a count, an update has sixteen bytes a number"
    assert not may_be_on_trust(WIDE, 4, trains=True, buffered=False)
    assert may_be_on_trust(WIDE + 1, 4, trains=True, buffered=False)
    assert may_be_on_trust(1, 3, trains=True, buffered=True)
    assert not on_trust(asked(real), 8)
    assert on_trust(asked(real), 9)
    assert not on_trust(asked(PERSONS), 128)


@pytest.mark.parametrize("site", ["site0", "site3"])
def test_a_model_is_followed(bench: Bench, site: str) -> None:
    """By those that took part, and by the one that was lost."""
    found = judged(bench, told(bench), site)
    np.testing.assert_array_equal(found.totals[0]["weights"], WEIGHTS)
    assert (found.sites, found.dropped) == (("site0", "site1", "site2", "site4"), ("site3",))


def total(**fields: Any) -> bytes:
    return encode(({"weights": WEIGHTS, "persons": np.array(40)} | fields,))


FALSE: dict[str, Callable[[Told], Told]] = {
    "another survivor set": lambda t: replace(t, sites=("site0", "site1", "site2", "site3"), dropped=("site4",)),
    "all of them": lambda t: replace(t, sites=("site0", "site1", "site2", "site3", "site4"), dropped=()),
    "too few": lambda t: replace(t, sites=t.sites[:2], dropped=("site2", "site3", "site4")),
    "a stranger": lambda t: replace(t, sites=(*t.sites, "mallory")),
    "out of order": lambda t: replace(t, sites=t.sites[::-1]),
    "a drop-out kept quiet": lambda t: replace(t, dropped=()),
    "a field less": lambda t: replace(t, totals=encode(({"weights": WEIGHTS},))),
    "a field more": lambda t: replace(t, totals=total(more=WEIGHTS)),
    "another shape": lambda t: replace(t, totals=total(weights=WEIGHTS[:2])),
    "not a number": lambda t: replace(t, totals=total(weights=WEIGHTS * np.nan)),
    "an infinite weight": lambda t: replace(t, totals=total(weights=WEIGHTS * np.inf)),
    "no array": lambda t: replace(t, totals=total(weights="heavy")),
    "no totals": lambda t: replace(t, totals=encode(())),
    "no message": lambda t: replace(t, totals=b"\xff"),
    "too few persons": lambda t: replace(t, totals=total(persons=np.array(4))),
    "an end with totals": lambda t: replace(t, ended="TooFewPersons"),
    "another end": lambda t: replace(t, ended="NotConverged", totals=encode(())),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_can_be_checked_is_checked(bench: Bench, name: str) -> None:
    with pytest.raises(AggregateFalse):
        judged(bench, FALSE[name](told(bench)))


def test_an_analysis_that_ends_by_its_minimum_of_persons(bench: Bench) -> None:
    found = judged(bench, told(bench, ended="TooFewPersons", totals=encode(())))
    assert (found.totals, found.ended) == ((), "TooFewPersons")
    said = told(bench, ended="TooFewPersons", totals=encode(()))
    with pytest.raises(AggregateFalse):  # a question that counts nobody cannot end so
        verified(said, asked(UPDATE_ALONE), bench.standings["site0"], RUN, bench.sites["site0"].book, 5)
