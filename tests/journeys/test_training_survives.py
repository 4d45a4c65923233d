"""Trainings that are killed with their sites and resumed; trainings with noise; all over real site folders."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from examples.accuracy import Data, breast
from examples.consortium import prepared
from fivefold.coordinator import session
from fivefold.engines.local import local_engine
from fivefold.protocol.results import Result
from fivefold.study.definition import Analysis
from fivefold.study.digest import load_signed
from tests.journeys.killing import Killing, killed

FORMULA = "malignant ~ mean_radius + mean_texture + mean_concavity + mean_symmetry"


@pytest.fixture(scope="module")
def data() -> Data:
    return breast()


def run(out: Path, data: Data, *, resume: bool = False, kill_at: int = 0) -> session.Run:
    engine = local_engine(out / "sites", data.sites)
    over = Killing(engine, kill_at, 2) if kill_at else engine
    signed = load_signed(out / "study.signed.json")
    return session.run(signed, over, out / "run", tell=lambda _: None, engine_name="local", resume=resume)


def result(done: session.Run, name: str) -> Result:
    found = done.results[name]
    assert isinstance(found, Result), found
    return found


def test_scaffold_killed_and_resumed_is_the_run_that_was_left_alone(data: Data, tmp_path: Path) -> None:
    """The control variates lie at the sites: staged in a round that was lost, they must not count."""
    options = {
        "rounds": 6,
        "snapshot_every": 2,
        "local_epochs": 3,
        "batch_size": 32,
        "learning_rate": 0.3,
        "evaluate_every": 6,
        "holdout": 0.25,
    }
    fresh = tmp_path / "fresh"
    prepared(fresh, "breast", data.frame, data.variables, (Analysis("drift", "scaffold", FORMULA, options=options),), seed=3)
    whole = shutil.copytree(fresh, tmp_path / "whole")
    expected = result(run(whole, data), "drift")
    kept = begun = 0
    for at in (9, 14):
        out = shutil.copytree(fresh, tmp_path / f"killed{at}")
        assert killed(partial(run, out, data, kill_at=at))
        kept += any((out / "sites").rglob("committed/*"))
        begun += any((out / "sites").rglob("*.snapshot"))
        found = result(run(out, data, resume=True), "drift")
        assert found.facts["weights_sha256"] == expected.facts["weights_sha256"], at
        assert found.tables == expected.tables
        shutil.rmtree(out)
    assert begun  # in one of them the sites go on from their own snapshots, beside their variates
    assert kept  # in some of them a variate was on disk when the process died
    assert not any((whole / "sites").rglob("committed/*")), "what a step kept dies with the run"


@pytest.mark.parametrize(("unit", "clip"), [("person", 1.0), ("site", 1.0), ("person", "adaptive")])
def test_a_training_with_noise_learns_and_says_what_it_cost(data: Data, tmp_path: Path, unit: str, clip: object) -> None:
    options: dict[str, object] = {
        "rounds": 12, "optimiser": "momentum", "beta1": 0.5, "clip": clip, "holdout": 0.25,
        "ranges": {"mean_radius": [6, 22], "mean_texture": [10, 30], "mean_concavity": [0, 0.3], "mean_symmetry": [0.1, 0.25]},
    }  # fmt: skip
    if unit == "person":
        options |= {"server_rate": 4.0, "learning_rate": 1.0, "evaluate_every": 12, "bins": 5}
    else:
        options |= {"server_rate": 1.0, "learning_rate": 0.3, "local_epochs": 2, "batch_size": 16}
    epsilon, z = (10.0, 2.5) if unit == "person" else (30.0, 1.0)  # sites: five hide little
    privacy = {"differential_privacy": {"unit": unit, "epsilon": epsilon, "delta": 1e-5, "noise_multiplier": z}}
    asked = Analysis("private", "fedopt", FORMULA, options=options)
    out = tmp_path / "out"
    prepared(out, "breast", data.frame, data.variables, (asked,), seed=1, privacy=privacy, policy={"max_epsilon": 40.0})
    found = result(run(out, data), "private")
    assert f"per {unit}" in str(found.facts["privacy"])
    weight = dict(zip(found.tables["coefficients"].column("term"), found.tables["coefficients"].column("scaled"), strict=True))
    assert float(str(weight["mean_concavity"])) > 0.3
    assert float(str(weight["mean_radius"])) > 0.3
    if clip == "adaptive":
        clips = found.tables["clips"].column("clip")
        assert clips[0] == 1.0
        assert 0.2 < float(str(clips[-1])) < 1.0  # half of the norms lie far below 1
    if unit == "person":
        assert found.facts["accuracy"] > 0.8
    else:
        assert "accuracy" not in found.facts
    assert np.isfinite([float(str(v)) for v in found.tables["weights"].column("value")]).all()
