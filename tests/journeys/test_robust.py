"""Robust training: single sites' replies, admitted by name, told as they were signed; a false site does not get its way."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.algorithms import robust_training
from fivefold.coordinator import session
from fivefold.engines.local import local_engine
from fivefold.errors import SiteRefused
from fivefold.governance import study_check
from fivefold.governance.threats import threats
from fivefold.protocol import messages as m
from fivefold.protocol.questions import SiteStep
from fivefold.protocol.results import Result
from fivefold.records.audit import entries
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from tests.algorithms import real_data
from tests.algorithms.training_data import weights
from tests.journeys.hostile import SITES, Hostile, changed

STEP = robust_training.local_update.identity
RULES = ("mean", "median", "krum")
OPTIONS: dict[str, Any] = {"rounds": 2, "learning_rate": 0.5, "local_epochs": 2, "batch_size": 0, "bins": 0}


def consortium(out: Path, policy: dict[str, Any]) -> Path:
    frame = real_data.breast()[0].assign(site=lambda f: f.site.map(dict(enumerate(SITES))))
    frame = pd.DataFrame(
        {"u": frame.mean_radius, "v": frame.mean_texture, "ill": frame.malignant.astype(float), "site": frame.site}
    )
    variables = (*(Variable(n, n, "number", minimum=0, maximum=99) for n in "uv"), Variable("ill", "ill", "boolean"))
    analyses = [Analysis(rule, "robust", "ill ~ u + v", options={"rule": rule, **OPTIONS}) for rule in RULES]
    prepared(out, "ill", frame, variables, analyses, seed=5, policy=policy)
    return out


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return consortium(tmp_path_factory.mktemp("named") / "it", {"steps": [STEP]})


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return consortium(tmp_path_factory.mktemp("unnamed") / "it", {})


def run(out: Path, to: Path, engine: Any = None) -> dict[str, Any]:
    with closing(engine or local_engine(out / "sites", SITES)) as over:
        found = load_signed(out / "study.signed.json")
        done = session.run(found, over, to, tell=lambda _: None, engine_name="local", resume=False)
    assert all(isinstance(r, Result) for r in done.results.values()), done.results
    return done.results


def test_it_runs_and_a_poisoning_site_pulls_the_mean_but_not_the_robust_rules(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = run(shutil.copytree(named, tmp_path / "a"), tmp_path / "honest")
    true = robust_training.local_update.function

    def false(table: Any, **arguments: Any) -> Any:
        answer = true(table, **arguments)
        return {"update": np.full_like(answer["update"], 9.0)} if table.site == "elm" else answer

    lying = SiteStep("robust.local_update", 1, "reply", false)
    monkeypatch.setattr(robust_training, "local_update", lying)
    bent = run(shutil.copytree(named, tmp_path / "b"), tmp_path / "bent")
    moved = {r: float(np.abs(weights(bent[r]) - weights(honest[r])).max()) for r in RULES}
    assert moved["mean"] > 3.0, moved
    assert all(moved[r] < 0.5 for r in RULES if r != "mean"), moved


def test_a_site_that_does_not_name_the_step_refuses_and_sends_nothing(unnamed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unnamed, tmp_path / "it")
    with pytest.raises(SiteRefused, match=r"alder: PolicyRefuses \(steps\)"):
        run(out, tmp_path / "run")
    log = entries(out / "sites" / "fir" / "state" / "audit.jsonl")
    assert [e.facts["rule"] for e in log if e.event == "refused"][-1] == "steps"
    assert not [e for e in log if e.event == "gather"]


def test_a_coordinator_cannot_tell_other_replies_than_were_signed(named: Path, tmp_path: Path) -> None:
    def forged(site: str, asked: m.Envelope) -> m.Envelope:
        if asked.kind not in (m.Gather.kind, m.Ask.kind):
            return asked
        task = m.Task.decode((m.Gather if asked.kind == m.Gather.kind else m.Ask).decode(asked.body).task)
        history = tuple(map(_bent, task.history))
        return changed(asked, m.Gather if asked.kind == m.Gather.kind else m.Ask, task=replace(task, history=history).encode())

    def _bent(data: bytes) -> bytes:
        told = m.Told.decode(data)
        shown = m.Transcript.decode(told.transcript)
        if shown.adverts:
            return data
        one = m.Envelope.decode(shown.masked[0])
        reply = m.Gathered.decode(one.body)
        one = replace(one, body=replace(reply, vector=bytes(len(reply.vector))).encode())
        return replace(told, transcript=replace(shown, masked=(one.encode(), *shown.masked[1:])).encode()).encode()

    out = shutil.copytree(named, tmp_path / "it")
    with pytest.raises(SiteRefused, match="transcript"):
        run(out, tmp_path / "run", Hostile(local_engine(out / "sites", SITES), forged))


def test_a_reply_is_not_given_to_the_trip_of_sums_nor_a_sum_alone(named: Path, tmp_path: Path) -> None:
    """The first question is a sum (the count): no site gives its own part of it."""

    def alone(site: str, asked: m.Envelope) -> m.Envelope:
        if asked.kind != m.Ask.kind:
            return asked
        task = m.Ask.decode(asked.body).task
        return replace(asked, kind=m.Gather.kind, body=m.Gather(task).encode())

    out = shutil.copytree(named, tmp_path / "it")
    hostile = Hostile(local_engine(out / "sites", SITES), alone)
    with pytest.raises(SiteRefused, match="gather"):
        run(out, tmp_path / "run", hostile)
    assert not [e for _, _, e in hostile.heard if e.kind == m.Gathered.kind]


def test_check_and_threats_say_that_single_updates_are_seen(named: Path) -> None:
    study = load_signed(named / "study.signed.json").study
    said = [repr(f) for f in study_check.notes(study)]
    assert any("each site's own update" in s for s in said), said
    shown = json.dumps([(t.name, t.covered, t.open) for t in threats(study)])
    assert "each site's own update" in shown
    assert "never a site's own numbers" not in shown
