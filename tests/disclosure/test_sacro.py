"""The attacks that a site plays on a model, and the report of the checks, beside SACRO's own tools: sacroml's worst-case and
structural attacks on the same models, members and hold-out; and ACRO's reader of `results.json`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fivefold.disclosure.memorisation import Answers, attacks, flags
from fivefold.disclosure.report import acro
from fivefold.governance.output_checks import propose
from fivefold.models.model import Model, ModelSpec, build, size
from fivefold.protocol.results import Result, ResultTable
from fivefold.results.write import file_names, write_result
from fivefold.study.definition import Analysis
from tests.environments import environment
from tests.governance.test_output_checks import DESCRIBED, NONE, SITES, description, statuses, study_of

PERSONS = 600
"""Members, and as many held out."""
USUAL = 10
"""The threshold for counts and for degrees of freedom of ACRO, which sacroml takes."""
R = np.random.default_rng(2)  # one draw; how six of them compare stands in docs/threat-model.md
X = R.normal(size=(2 * PERSONS, 16))
Y = ((X[:, 0] + X[:, 1] > 0) ^ (R.random(2 * PERSONS) < 0.25)).astype(np.float64)
CERTAIN = np.where(X[:, 2] > 0.5, 1.0, Y)
"""An outcome that all of some have."""
NETWORKS = {  # hidden units, penalty, steps of descent, rate
    "heart": (64, 0.0, 400, 1.5),  # learns its members by heart
    "plain": (2, 0.02, 100, 1.0),
}


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[Model, Any]]:
    """Models of Fivefold and their weights."""
    made = {}
    for name, (hidden, l2, steps, rate) in NETWORKS.items():
        model = build(ModelSpec("mlp", "classes", X.shape[1], 2, hidden=(hidden,), l2=l2))
        weights = model.initial(np.random.default_rng(1))
        for _ in range(steps):
            weights = model.descend(weights, X[:PERSONS], Y[:PERSONS], rate)
        made[name] = (model, weights)
    return made


@pytest.fixture(scope="module")
def said(networks: dict[str, tuple[Model, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SACRO's tools say: of each network, of a forest and two trees; and of the report of a release."""
    folder = tmp_path_factory.mktemp("sacro")
    weights = {f"{name}.{at}": w for name, (_, found) in networks.items() for at, w in found.items()}
    np.savez(folder / "given.npz", x=X, y=Y.astype(int), certain=CERTAIN.astype(int), **weights)
    released(folder)
    words = [environment("sacro") / "python", Path(__file__).with_name("in_sacro.py"), folder]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "said.json").read_bytes())
    return found


def released(folder: Path) -> None:
    """Tables and report of a release, with the names that the airlock gives them."""
    study, result = study_of(DESCRIBED), {"description": description((30, 2, 25, 40, 35, 9), 141)}
    write_result(folder, result, {})
    files = [f"tables/description.{table}.csv" for table in file_names(result["description"].tables)]
    made = propose(study, result, "as_is", objections=NONE, files={"description": files})
    report = acro(made.report, "fivefold 1", "2026-11-28T12:00:00Z", ["First: by design"], "the empty cell is by design")
    (folder / "report.json").write_text(json.dumps(report), "utf-8")


def answers(name: str, networks: dict[str, tuple[Model, Any]], said: dict[str, Any]) -> tuple[Answers, Answers]:
    """What a model says of its members and of those held out: a network by Fivefold, a tree by scikit-learn."""
    predicted = np.array(said[name]["predicted"])
    if name in networks:
        model, weights = networks[name]
        own = model.predict(weights, X)
        np.testing.assert_allclose(own, predicted, atol=1e-4)  # the same model, in single precision there
        predicted = own
    y = CERTAIN if name == "certain" else Y
    loss = -np.log(np.clip(predicted[np.arange(len(y)), y.astype(int)], 1e-7, 1))
    inside, outside = (Answers(predicted[part], loss[part], y[part]) for part in (slice(PERSONS), slice(PERSONS, None)))
    return inside, outside


@pytest.mark.parametrize(("name", "found"), [("heart", True), ("forest", True), ("plain", False), ("coarse", False)])
def test_the_worst_case_is_sacromls(name: str, found: bool, networks: Any, said: Any) -> None:
    """The mean area over sacroml's repetitions lies in the interval of ours, of models that learned by heart and of others."""
    scores = attacks(*answers(name, networks, said), classes=True)[1]
    assert scores.low <= np.mean(said[name]["areas"]) <= scores.high
    assert scores.succeeds == found


@pytest.mark.parametrize("name", ["heart", "plain", "forest", "coarse", "certain"])
def test_the_smallest_group_of_equal_predictions_is_sacromls(name: str, networks: Any, said: Any) -> None:
    members, _ = answers(name, networks, said)
    smallest = said[name]["smallest"]
    assert ("k-anonymity" in flags(members, classes=True, threshold=USUAL)) == said[name]["k_anonymity_risk"]
    assert "k-anonymity" not in flags(members, classes=True, threshold=smallest)
    assert "k-anonymity" in flags(members, classes=True, threshold=smallest + 1)


@pytest.mark.parametrize(("name", "ours", "theirs"), [
    ("certain", True, True),
    ("coarse", False, False),
    ("heart", True, True),
    ("plain", False, False),
    ("forest", True, False),
])  # fmt: skip
def test_class_disclosure_is_sacromls_and_counts_outcomes_too(
    name: str, ours: bool, theirs: bool, networks: Any, said: Any
) -> None:
    """sacroml asks whether a model gives a label no chance at all; ours whether all who share a prediction share the outcome,
    as with a forest that says 0.92 of nobody but those who have it."""
    members, _ = answers(name, networks, said)
    assert said[name]["class_disclosure_risk"] == theirs
    assert ("class-disclosure" in flags(members, classes=True, threshold=USUAL)) == ours


def test_too_few_degrees_of_freedom_is_too_many_parameters(networks: Any, said: Any) -> None:
    """sacroml's risk begins where parameters leave fewer than ten persons over, ours at a third of the persons."""
    fit = Analysis("fit", "fedavg", formula="age ~ sex", options={"holdout": 0.5})
    weights = ResultTable.of("Weights", ("layer", "index", "value"), [("layer1", "0", 0.5)])
    for name, (model, _) in networks.items():
        assert said[name]["parameters"] == size(model)
        result = Result("fedavg", {"weights": weights}, {"persons": PERSONS, "weights": size(model)}, SITES)
        made = propose(study_of(fit), {"fit": result}, "as_is", objections=NONE, models={"fit": b"a file"})
        assert statuses(made, "parameters") == {"fail" if said[name]["dof_risk"] else "pass"}
    assert said["heart"]["dof_risk"] != said["plain"]["dof_risk"]


def test_unnecessary_risk_is_about_trees_alone(said: Any) -> None:
    """Rules on the settings of trees and forests, which no method here trains; of a network sacroml has none to compare."""
    risky = {name for name in ("heart", "plain", "forest", "coarse", "certain") if said[name]["unnecessary_risk"]}
    assert risky == {"forest"}


def test_acro_reads_the_report(said: Any) -> None:
    (output,) = said["acro"].values()
    assert (output["status"], output["type"]) == ("fail", "table")
    assert output["summary"].startswith("fail; ")
    assert (output["comments"], output["exception"]) == (["First: by design"], "the empty cell is by design")
    assert {"sites", "threshold"} <= set(output["rules"])
    assert output["sdc"] == {"summary": {"suppressed": False, "threshold": 1}, "cells": {"threshold": [[0, 1]]}}
    assert output["tables"] == [["sex", "stage", "persons"]]
