"""A model that tells whom it was trained on is not released: each site attacks it on its own members and its own hold-out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from fivefold.disclosure.tables import Count
from fivefold.governance import approvals
from fivefold.governance.custody import sign_policy
from fivefold.models.model import flat, named
from fivefold.plugins import method
from fivefold.protocol.results import Result, ResultTable
from fivefold.records.audit import entries
from fivefold.replay.cursor import setting_of
from fivefold.site.memorisation import Model, attack, model_of, parts, power, remembers
from fivefold.site.preparation import open_prepared, prepare
from fivefold.site.release_ledger import Proposed, verdict
from fivefold.study.definition import Analysis

SCALING = (("age", 50.0, 20.0), ("weight", 80.0, 20.0))
OPTIONS = {"model": {"kind": "mlp", "hidden": [200]}, "rounds": 2, "learning_rate": 0.1}
FIT = Analysis("fit", "fedavg", formula="weight ~ age + sex", options=OPTIONS | {"holdout": 0.5})


@pytest.fixture
def signed(consortium: Any, now: datetime) -> Any:
    consortium.rewrite("methods: [", 'methods: ["fedavg", ')
    consortium.rewrite("version: 1", "version: 2")
    sign_policy(consortium.site.path, consortium.custodian, now=now)
    made = consortium.signed(analyses=(FIT,))
    approvals.approve(consortium.site.path, made.study, made.digest, consortium.custodian, now=now)
    prepare(consortium.site, made.study, made.digest, when=now)
    return made


def by_heart(consortium: Any, signed: Any) -> Model:
    """A network whose last layer goes through every member's weight exactly; the rows are random, so there is nothing else to
    learn."""
    table = open_prepared(consortium.site, signed.study, signed.digest).table
    spec = method(FIT.method).parse(FIT, setting_of(signed.study))
    built, members, others = parts(spec, SCALING, table)
    assert min(len(members), len(others)) > 12
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(0, 8, shape) for name, shape in built.shapes.items()}
    hidden = np.maximum(members.x @ weights["layer1"] + weights["bias1"], 0)
    last = np.linalg.lstsq(np.column_stack([hidden, np.ones(len(hidden))]), members.y, rcond=None)[0]
    weights["layer2"], weights["bias2"] = last[:-1, None], last[-1:]
    return Model(tuple(flat(weights).tolist()), SCALING)


def test_a_site_objects_to_a_model_that_knows_its_members_by_heart(consortium: Any, signed: Any, now: datetime) -> None:
    site, counts = consortium.site, {"fit": (Count.of({}, 150),)}
    table = open_prepared(site, signed.study, signed.digest).table
    learned = by_heart(consortium, signed)
    blank = Model(tuple(0.0 for _ in learned.weights), SCALING)
    found, chance = (power(signed.study, FIT, model, table) for model in (learned, blank))
    assert found is not None
    assert chance is not None
    assert found[0] > 0.9
    assert not remembers(chance)
    for model, objects in ((learned, True), (blank, False)):
        proposal = Proposed(counts, "who, by which words", {"fit": model})
        assert verdict(site, signed, proposal, now=now) is objects
    said = [e.facts["reasons"] for e in entries(site.state / "audit.jsonl") if e.event == "release verdict"]
    assert said == [["membership"], []]
    one, other = (Proposed(counts, "who", {"fit": model}).identity for model in (learned, blank))
    assert one != other  # a word about one model is none about another


def test_where_nobody_is_held_out_a_site_cannot_tell(consortium: Any, signed: Any) -> None:
    table = open_prepared(consortium.site, signed.study, signed.digest).table
    learned = by_heart(consortium, signed)
    assert power(signed.study, replace(FIT, options=OPTIONS), learned, table) is None
    assert power(signed.study, FIT, Model(learned.weights[:-1], SCALING), table) is None
    slope = Analysis("slope", "glm", formula="weight ~ age", options={"family": "gaussian"})
    assert power(signed.study, slope, learned, table) is None
    assert not remembers(None)


def test_the_attack_is_the_area_under_its_roc_curve() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(1)
    members, others = np.round(rng.exponential(1, 60), 1), np.round(rng.exponential(1.4, 45), 1)
    found = attack(members, others)
    assert found is not None
    assert found[0] == pytest.approx(mannwhitneyu(others, members).statistic / (60 * 45))
    assert found[1] == pytest.approx(np.sqrt(106 / (12 * 60 * 45)))
    assert attack(members, np.zeros(0)) is None
    assert remembers((0.75, 0.05))
    assert not remembers((0.75, 0.2))  # five persons held out prove nothing
    assert not remembers((0.58, 0.01))


def test_the_model_is_read_from_the_tables_that_would_be_released() -> None:
    weights = ResultTable.of("Weights", ("layer", "index", "value"), [("layer1", "0,0", 1.5), ("bias1", "0", -2.0)])
    scaling = ResultTable.of("Scaling", ("variable", "centre", "scale"), [("age", 50.0, 20.0)])
    result = Result("fedavg", {"weights": weights, "scaling": scaling}, {}, ("basel",))
    found = model_of(result)
    assert found == Model((1.5, -2.0), (("age", 50.0, 20.0),))
    assert named(np.array(found.weights), {"layer1": (1, 1), "bias1": (1,)})["bias1"] == [-2.0]
    hidden = replace(weights, rows=((*weights.rows[0][:2], None), weights.rows[1]))
    for tables in ({"weights": hidden, "scaling": scaling}, {"weights": replace(weights, rows=()), "scaling": scaling}, {}):
        assert model_of(replace(result, tables=tables)) is None
