"""A coordinator that sends a false model: where the updates are small, the sites add them up themselves and refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.coordinator import session
from fivefold.engines.local import local_engine
from fivefold.errors import SiteRefused
from fivefold.protocol import messages as m
from fivefold.protocol.encoding import decode, encode
from fivefold.protocol.messages import Envelope
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from tests.journeys.hostile import Alter, Hostile, changed, opens_nothing, task_of

SITES = ("alder", "birch", "cedar")
ROUND = 3
"""Its aggregate is a sum of updates."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    r = np.random.default_rng(2)
    x = r.normal(size=90)
    frame = pd.DataFrame({"u": x, "ill": (x + r.normal(size=90) > 0).astype(float), "site": np.resize(SITES, 90)})
    variables = (Variable("u", "u", "number", minimum=-9, maximum=9), Variable("ill", "ill", "boolean"))
    asked = Analysis("net", "fedavg", "ill ~ u", options={"rounds": 3, "evaluate_every": 0})
    prepared(tmp_path / "net", "net", frame, variables, (asked,), seed=5)
    return tmp_path / "net"


def moved(told: m.Told) -> m.Told:
    """The totals of that round, of which one weight is another in its last bit."""
    if told.round != ROUND:
        return told
    (totals,) = decode(told.totals)
    update = np.array(totals["update"])
    update[0] = np.nextafter(update[0], np.inf)
    return replace(told, totals=encode(({**totals, "update": update},)))


def without_its_proof(told: m.Told) -> m.Told:
    return replace(told, question=b"", transcript=b"") if told.round == ROUND else told


@pytest.mark.parametrize("change", [moved, without_its_proof])
def test_a_false_model_is_refused_by_every_site(out: Path, change: Callable[[m.Told], m.Told]) -> None:
    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "ask" or not task_of(asked).history:
            return asked
        history = tuple(change(m.Told.decode(t)).encode() for t in task_of(asked).history)
        return changed(asked, m.Ask, task=replace(task_of(asked), history=history).encode())

    hostile = over(out, alter)
    with pytest.raises(SiteRefused):
        run(out, hostile)
    said = hostile.refusals("ask")
    assert {s: (r.code, r.rule) for s, r in said.items()} == dict.fromkeys(SITES, ("AggregateFalse", "transcript"))
    opens_nothing(hostile, ROUND + 1)


def test_the_true_one_is_followed(out: Path) -> None:
    assert isinstance(run(out, over(out, lambda name, asked: asked)).results["net"], Result)


def over(out: Path, alter: Alter) -> Hostile:
    return Hostile(local_engine(out / "sites", SITES), alter)


def run(out: Path, engine: Hostile) -> session.Run:
    signed = load_signed(out / "study.signed.json")
    return session.run(signed, engine, out / "run", tell=lambda _: None, engine_name="local", resume=False)
