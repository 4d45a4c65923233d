"""A PyTorch training that is killed (kill -9, coordinator and sites) and resumed from its snapshot is the one left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.consortium import prepared
from fivefold.coordinator import session
from fivefold.engines.local import local_engine
from fivefold.models.safetensors import load
from fivefold.protocol.results import Result
from fivefold.records.audit import entries
from fivefold.replay.cursor import Cursor, Outcome
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Variable
from fivefold.study.digest import load_signed
from tests.journeys.killing import Killing, killed

SITES = ("alder", "birch", "cedar")
OPTIONS = {
    "model": {"kind": "torch_mlp", "hidden": [4]}, "optimiser": "adam", "rounds": 5, "snapshot_every": 2, "batch_size": 16,
    "learning_rate": 0.2, "evaluate_every": 5, "bins": 0,
}  # fmt: skip


def ran(out: Path, *, at: int = 0, resume: bool = False) -> Result:
    engine = local_engine(out / "sites", SITES)
    signed, over = load_signed(out / "study.signed.json"), Killing(engine, at, 1) if at else engine
    found = session.run(signed, over, out / "run", tell=lambda _: None, engine_name="local", resume=resume).results["net"]
    assert isinstance(found, Result), found
    return found


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds that any replay is fed from now on."""
    fed, plainly = list[int](), Cursor.feed

    def feed(self: Cursor, outcome: Outcome, *, stop: bool = False) -> None:
        assert self.open is not None
        fed.append(self.open.round)
        plainly(self, outcome, stop=stop)

    monkeypatch.setattr(Cursor, "feed", feed)
    return fed


def test_a_torch_training_killed_and_resumed_is_the_run_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = np.random.default_rng(2)
    x = r.normal(size=(120, 2))
    ill = (x.prod(axis=1) > 0).astype(float)
    frame = pd.DataFrame({"u": x[:, 0], "v": x[:, 1], "ill": ill, "site": np.resize(SITES, 120)})
    variables = (*(Variable(n, n, "number", minimum=-9, maximum=9) for n in "uv"), Variable("ill", "ill", "boolean"))
    whole = tmp_path / "whole"
    prepared(whole, "net", frame, variables, (Analysis("net", "fedopt", "ill ~ u + v", options=OPTIONS),), seed=5)
    cut = shutil.copytree(whole, tmp_path / "cut")
    expected = ran(whole)
    assert killed(lambda: ran(cut, at=22))  # in the fifth round, after the first snapshot
    kept = cut / "run" / "journal" / "snapshots"
    assert [p.name for p in kept.glob("*.safetensors")] == ["net-000005.safetensors"]  # the count, then four rounds of training
    assert set(load((kept / "net-000005.safetensors").read_bytes())) >= {"state.weights", "state.first", "state.second"}
    fed = watched(monkeypatch)
    found = ran(cut, resume=True)
    assert min(fed) == 6, "coordinator and sites begin at the snapshot"
    assert len(fed) >= 1 + len(SITES)
    said = [e.facts for e in entries(cut / "run" / "audit.jsonl") if e.event == "resumed from snapshot"]
    assert said == [{"analysis": "net", "round": 5}]
    assert not any((cut / "sites").rglob("*.safetensors")), "a site's snapshots go with the run"
    assert found.facts["weights_sha256"] == expected.facts["weights_sha256"]
    assert found.tables == expected.tables
