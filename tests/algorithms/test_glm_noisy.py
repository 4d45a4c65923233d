"""GLMs with noise: near the exact ones, intervals that cover, no person counts for more than one; honest silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fivefold.algorithms.glm import METHOD
from fivefold.algorithms.glm_noisy import Frame
from fivefold.algorithms.method import Setting
from fivefold.errors import FivefoldError
from fivefold.study.definition import Analysis
from fivefold.study.dictionary import Dictionary, Variable
from fivefold.study.table import Table
from tests.algorithms import noisy, plain, real_data

SITES = ("a", "b", "c")
DICTIONARY = Dictionary(
    "d",
    "1",
    {
        "x": Variable("x", "", "number", minimum=0.0, maximum=100.0),
        "y": Variable("y", "", "number", minimum=-100.0, maximum=100.0),
        "n": Variable("n", "", "integer", minimum=0, maximum=40),
        "g": Variable("g", "", "boolean"),
        "d": Variable("d", "", "boolean"),
    },
)
SETTING = Setting(DICTIONARY, SITES, 5, 10_000)
RESPONSE = {"gaussian": "y", "binomial": "d", "poisson": "n"}
CLIP = {"gaussian": {"x": [20, 60], "y": [-20, 40]}, "binomial": {"x": [20, 60]}, "poisson": {"x": [20, 60], "n": [0, 12]}}
TRUTH = {"gaussian": (0.0, 0.25, 3.0), "binomial": (-2.5, 0.05, 0.8), "poisson": (-0.4, 0.02, 0.4)}


def asked(family: str, **options: Any) -> Analysis:
    given = {"family": family, "clip": CLIP[family]} | options
    return Analysis("a", "glm", f"{RESPONSE[family]} ~ x + g", options=given)


def drawn(family: str, r: np.random.Generator, rows: int) -> tuple[Table, ...]:
    """Three sites of persons from the model itself."""
    out = []
    for site in SITES:
        x, g = r.uniform(20, 60, rows), (r.random(rows) < 0.5).astype(float)
        eta = TRUTH[family][0] + TRUTH[family][1] * x + TRUTH[family][2] * g
        columns = {"x": x, "g": g, "y": np.zeros(rows), "n": np.zeros(rows), "d": np.zeros(rows)}
        if family == "gaussian":
            columns["y"] = np.clip(eta + r.normal(0, 4, rows), -20, 40)
        elif family == "binomial":
            columns["d"] = (r.random(rows) < 1 / (1 + np.exp(-eta))).astype(float)
        else:
            columns["n"] = np.minimum(r.poisson(np.exp(eta)), 40).astype(float)
        out.append(Table(site, DICTIONARY, columns, np.arange(rows)))
    return tuple(out)


@pytest.mark.parametrize("family", list(TRUTH))
def test_with_little_noise_it_is_the_exact_one(family: str) -> None:
    tables = drawn(family, np.random.default_rng(1), 400)
    clip = {"clip": CLIP[family] | ({"n": [0, 40]} if family == "poisson" else {})}
    ours = noisy.run(METHOD, asked(family, **clip), noisy.private(SETTING, 1e-6), tables)
    exact = plain.run(METHOD, asked(family, clip={}), SETTING, tables)
    for column in ("estimate", "standard_error", "low", "high"):
        theirs = np.array(exact.tables["coefficients"].column(column))
        assert np.array(ours.tables["coefficients"].column(column)) == pytest.approx(theirs, rel=5e-3, abs=2e-3)
    assert ours.facts["persons"] == 1200


@pytest.mark.parametrize(("family", "rows", "z"), [("gaussian", 1200, 4.0), ("binomial", 600, 4.0), ("poisson", 1000, 2.0)])
def test_intervals_cover_the_truth(family: str, rows: int, z: float) -> None:
    """Fresh persons in each of 100 studies, three coefficients: nominal 95 % intervals that hold sampling and noise, where the
    noise is as large as sampling."""
    r, setting, trials = np.random.default_rng(8), noisy.private(SETTING, z), 100
    inside, given = np.zeros(3), 0
    for trial in range(trials):
        table = noisy.run(METHOD, asked(family), setting, drawn(family, r, rows), seed=trial).tables["coefficients"]
        if "standard_error" not in table.columns:
            continue
        given += 1
        away = np.abs(np.array(table.column("estimate")) - TRUTH[family])
        inside += away <= 1.96 * np.array(table.column("standard_error"))
    assert given >= 0.9 * trials
    assert np.all(np.abs(inside / given - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / given))


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_errors_hold_the_noise_and_grow_with_it(family: str) -> None:
    tables = drawn(family, np.random.default_rng(5), 1500)
    errors = []
    for z in (1e-6, 1.0, 2.0):
        result = noisy.run(METHOD, asked(family), noisy.private(SETTING, z), tables)
        errors.append(np.array(result.tables["coefficients"].column("standard_error")))
        assert any("hold sampling and noise" in note for note in result.notes)
        assert {"odds_ratio", "rate_ratio"} & set(result.tables["effects"].columns)
    assert np.all(errors[0] < errors[1])
    assert np.all(errors[1] < errors[2])


def test_noise_that_drowns_the_information_leaves_no_errors() -> None:
    for family in TRUTH:
        result = noisy.run(METHOD, asked(family), noisy.private(SETTING, 50.0), drawn(family, np.random.default_rng(2), 60))
        assert result.tables["coefficients"].columns == ("term", "estimate")
        assert "effects" not in result.tables
        assert any("so none are given" in note for note in result.notes)
        assert np.isfinite(result.tables["coefficients"].column("estimate")).all()


@pytest.mark.parametrize("family", list(TRUTH))
def test_no_person_changes_a_field_by_more_than_its_sensitivity(family: str) -> None:
    """Persons of several rows, values far beyond the clip, a steep model."""
    r = np.random.default_rng(4)
    for trial in range(40):
        person = r.integers(0, 6, 20)
        columns = {"x": r.choice([0.0, 20.0, 60.0, 100.0], 20), "g": r.integers(0, 2, 20).astype(float)}
        columns |= {"y": r.choice([-100.0, 100.0], 20), "n": r.choice([0.0, 40.0], 20), "d": r.integers(0, 2, 20).astype(float)}
        whole = Table("a", DICTIONARY, columns, person)
        question = Frame.of(METHOD.parse(asked(family), noisy.private(SETTING))).ask(r.normal(0, 1 + trial, 3))
        full, rest = (question.step(t, **question.arguments) for t in (whole, whole.take(person != 2)))
        for f in question.fields:
            assert f.sensitivity is not None
            assert np.linalg.norm(np.asarray(full[f.name]) - np.asarray(rest[f.name])) <= f.sensitivity
            assert np.abs(full[f.name]).max() <= f.bound


def test_what_noise_cannot_protect_is_refused() -> None:
    private = noisy.private(SETTING)
    for more, words in (({"weights": "n", "weights_are": "frequency"}, "n"), ({"heterogeneity": True}, "heterogeneity")):
        with pytest.raises(FivefoldError, match=words):
            METHOD.parse(asked("gaussian", **more), private)
    with pytest.raises(FivefoldError, match="by site"):
        METHOD.parse(replace(asked("binomial"), formula="d ~ x + site"), private)
    with pytest.raises(FivefoldError, match="clip"):
        METHOD.parse(asked("gaussian"), SETTING)


def test_it_asks_what_it_says_it_costs() -> None:
    for family, questions in (("gaussian", 1), ("binomial", 6), ("poisson", 6)):
        spec = METHOD.parse(asked(family), noisy.private(SETTING))
        result = noisy.run(METHOD, asked(family), noisy.private(SETTING), drawn(family, np.random.default_rng(3), 50))
        assert METHOD.cost(spec).rounds == questions == result.facts["iterations"]


def test_breast_data() -> None:
    """A clip that cuts nobody, moderate noise: the estimates lie within the printed intervals' reach of the exact ones."""
    _, setting, tables = real_data.breast()
    formula = "malignant ~ mean_texture + mean_symmetry"
    clip = {"mean_texture": [9, 40], "mean_symmetry": [0.1, 0.31]}
    ours = noisy.run(
        METHOD, Analysis("a", "glm", formula, options={"family": "binomial", "clip": clip}), noisy.private(setting, 0.3), tables
    )
    exact = plain.run(METHOD, Analysis("a", "glm", formula, options={"family": "binomial"}), setting, tables)
    away = np.array(ours.tables["coefficients"].column("estimate")) - exact.tables["coefficients"].column("estimate")
    assert np.all(np.abs(away) <= 0.5 * np.array(exact.tables["coefficients"].column("standard_error")))
